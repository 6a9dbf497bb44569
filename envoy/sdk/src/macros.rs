//! The macros that declare a module. Each may be used once in a `cdylib`.

/// Declares a module with any of the extension points:
///
/// ```ignore
/// declare_all_init_functions!(init, http: new_filter, http_per_route: new_route, cluster: new_cluster,
///     bootstrap: new_bootstrap);
/// ```
///
/// `init` is a [`ProgramInitFunction`](crate::ProgramInitFunction); the others have the types
/// [`NewHttpFilterConfigFunction`](crate::NewHttpFilterConfigFunction),
/// [`NewHttpFilterPerRouteConfigFunction`](crate::NewHttpFilterPerRouteConfigFunction),
/// [`NewClusterConfigFunction`](crate::NewClusterConfigFunction) and
/// [`NewBootstrapExtensionConfigFunction`](crate::NewBootstrapExtensionConfigFunction). The hooks of the bootstrap extension
/// are exported only when it is declared.
#[macro_export]
macro_rules! declare_all_init_functions {
    ($init:expr $(, $kind:ident : $function:expr)* $(,)?) => {
        /// The module's entry point.
        ///
        /// # Safety
        /// Called by Envoy, once per load, on the main thread.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn envoy_dynamic_module_on_program_init() -> *const ::std::ffi::c_char {
            $($crate::__declare!(set $kind $function);)*
            $crate::__private::program_init($init)
        }
        $($crate::__declare!(export $kind);)*
    };
}

/// Declares a module with an HTTP filter and, if given, route configurations of its own.
#[macro_export]
macro_rules! declare_init_functions {
    ($init:expr, $http:expr $(,)?) => {
        $crate::declare_all_init_functions!($init, http: $http);
    };
    ($init:expr, $http:expr, $per_route:expr $(,)?) => {
        $crate::declare_all_init_functions!($init, http: $http, http_per_route: $per_route);
    };
}

/// Declares a module with a bootstrap extension.
#[macro_export]
macro_rules! declare_bootstrap_init_functions {
    ($init:expr, $new:expr $(,)?) => {
        $crate::declare_all_init_functions!($init, bootstrap: $new);
    };
}

/// Declares a module with a cluster.
#[macro_export]
macro_rules! declare_cluster_init_functions {
    ($init:expr, $new:expr $(,)?) => {
        $crate::declare_all_init_functions!($init, cluster: $new);
    };
}

/// One extension point of [`declare_all_init_functions!`]: registers its constructor, or exports its hooks where they are not
/// exported anyway.
#[doc(hidden)]
#[macro_export]
macro_rules! __declare {
    (set http $function:expr) => {
        $crate::NEW_HTTP_FILTER_CONFIG_FUNCTION.get_or_init(|| $function);
    };
    (set http_per_route $function:expr) => {
        $crate::NEW_HTTP_FILTER_PER_ROUTE_CONFIG_FUNCTION.get_or_init(|| $function);
    };
    (set cluster $function:expr) => {
        $crate::NEW_CLUSTER_CONFIG_FUNCTION.get_or_init(|| $function);
    };
    (set bootstrap $function:expr) => {
        $crate::NEW_BOOTSTRAP_EXTENSION_CONFIG_FUNCTION.get_or_init(|| $function);
    };
    (export bootstrap) => {
        $crate::__export_bootstrap_hooks!();
    };
    (export $other:ident) => {};
}
