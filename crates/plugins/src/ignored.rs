//! Parameters of types that take none.

use inlane_core::registry::{Build, Params};

/// Ignores the parameters, as the reference does for a type without any, and says so.
pub(crate) fn ignore(build: &mut Build<'_>, params: &Params) {
    if params.is_given() {
        build.warn("takes no parameters; those given are ignored");
    }
}
