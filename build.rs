//! Turns Envoy's ABI header into Rust, for the SDK package.
//!
//! The header is the only place where a signature is written. From it come, through bindgen, the types (`abi_types.rs`), and from
//! the prototypes that bindgen reads
//!
//! * `callbacks.rs`: a table with one `Option<fn>` per callback and the code that fills it by symbol name. The
//!   prototypes themselves are dropped, so that nothing is left for a linker to resolve;
//! * `hooks.rs`: one function type per hook, against which the exports are checked.
//!
//! In both, an enum parameter or result becomes the integer it is in C: a value that this header does not know must not
//! become a Rust enum. Each enum gets `from_raw` for the way back.

use std::env;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use bindgen::callbacks::{EnumVariantValue, ParseCallbacks};
use quote::{format_ident, quote};
use syn::visit_mut::VisitMut;

const CALLBACK: &str = "envoy_dynamic_module_callback_";
const HOOK: &str = "envoy_dynamic_module_on_";
/// The one hook that a module exports itself, by macro.
const ENTRY: &str = "program_init";

fn main() -> Result<(), Box<dyn Error>> {
    let package = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let abi = package.join("../abi");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    println!("cargo::rerun-if-changed={}", abi.display());
    println!("cargo::rerun-if-changed={}", package.join("../../build.rs").display());

    let header = abi.join("abi.h");
    let bindings = bindgen::Builder::default()
        .header(header.to_str().ok_or("the path of abi.h is not UTF-8")?)
        .allowlist_item("envoy_dynamic_module_.*")
        .default_enum_style(bindgen::EnumVariation::Rust { non_exhaustive: false })
        .parse_callbacks(Box::new(ShortVariants))
        .derive_debug(true)
        .layout_tests(true)
        .generate_comments(true)
        .formatter(bindgen::Formatter::None)
        .generate()?
        .to_string();
    write_rust(syn::parse_file(&bindings)?, &out)
}

/// Names a variant without the name of its enum, which C needs and Rust does not.
#[derive(Debug)]
struct ShortVariants;

impl ParseCallbacks for ShortVariants {
    fn enum_variant_name(
        &self,
        enum_name: Option<&str>,
        variant: &str,
        _value: EnumVariantValue,
    ) -> Option<String> {
        let prefix = enum_name?.trim_start_matches("enum ");
        Some(variant.strip_prefix(prefix)?.strip_prefix('_')?.to_owned())
    }
}

/// Splits the items of `file` into the three generated files.
fn write_rust(file: syn::File, out: &Path) -> Result<(), Box<dyn Error>> {
    let mut types = Vec::new();
    let mut functions = Vec::new();
    let mut enums = Vec::new();
    for item in file.items {
        match item {
            syn::Item::ForeignMod(block) => functions.extend(block.items),
            syn::Item::Enum(item) => {
                types.push(from_raw(&item));
                enums.push(item.ident.clone());
                types.push(quote!(#item));
            }
            other => types.push(quote!(#other)),
        }
    }

    let mut fields = Vec::new();
    let mut lookups = Vec::new();
    let mut hooks = Vec::new();
    for item in functions {
        let syn::ForeignItem::Fn(mut function) = item else { continue };
        EnumsAsIntegers(&enums).visit_signature_mut(&mut function.sig);
        let symbol = function.sig.ident.to_string();
        let (docs, inputs, output) = (&function.attrs, &function.sig.inputs, &function.sig.output);
        let docs = docs.iter().filter(|attribute| attribute.path().is_ident("doc"));
        if let Some(name) = symbol.strip_prefix(CALLBACK) {
            let field = format_ident!("{name}");
            let name = std::ffi::CString::new(symbol.clone())?;
            fields.push(quote! {
                #(#docs)*
                pub(crate) #field: Option<unsafe extern "C" fn(#inputs) #output>
            });
            // SAFETY of the generated transmute: a symbol of this name has the prototype in the header, by the promise
            // of the ABI; `Option<fn>` and a pointer have the same layout, with NULL as `None`.
            lookups.push(quote! {
                #field: unsafe { ::std::mem::transmute::<
                    *mut ::std::ffi::c_void,
                    Option<unsafe extern "C" fn(#inputs) #output>,
                >(lookup(#name)) }
            });
        } else if let Some(name) = symbol.strip_prefix(HOOK).filter(|name| *name != ENTRY) {
            let name = format_ident!("{name}");
            hooks.push(quote!(pub(crate) type #name = unsafe extern "C" fn(#inputs) #output;));
        }
    }

    let callbacks = quote! {
        /// Every callback of the header; `None` where this Envoy lacks it.
        #[derive(Clone, Copy, Default)]
        pub(crate) struct Callbacks { #(#fields,)* }
        impl Callbacks {
            /// Fills the table, asking `lookup` for each symbol's address (null when absent).
            ///
            /// # Safety
            /// A non-null answer must be the address of the function of that name in Envoy's ABI.
            pub(crate) unsafe fn resolve(
                lookup: impl Fn(&::std::ffi::CStr) -> *mut ::std::ffi::c_void,
            ) -> Self {
                Self { #(#lookups,)* }
            }
        }
    };
    fs::write(out.join("abi_types.rs"), quote!(#(#types)*).to_string())?;
    fs::write(out.join("callbacks.rs"), callbacks.to_string())?;
    fs::write(out.join("hooks.rs"), quote!(#(#hooks)*).to_string())?;
    Ok(())
}

/// `from_raw` for an enum: the variant of an integer, if it is one.
fn from_raw(item: &syn::ItemEnum) -> proc_macro2::TokenStream {
    let name = &item.ident;
    let (variants, values): (Vec<_>, Vec<_>) = item
        .variants
        .iter()
        .filter_map(|variant| Some((&variant.ident, &variant.discriminant.as_ref()?.1)))
        .unzip();
    quote! {
        impl #name {
            /// The variant with this number, or `None` when the number is not known.
            #[must_use]
            pub const fn from_raw(raw: u32) -> Option<Self> {
                match raw { #(#values => Some(Self::#variants),)* _ => None }
            }
        }
    }
}

/// Replaces the enums in a signature by `u32`, their representation in C.
struct EnumsAsIntegers<'a>(&'a [syn::Ident]);

impl VisitMut for EnumsAsIntegers<'_> {
    fn visit_type_path_mut(&mut self, path: &mut syn::TypePath) {
        if path.path.get_ident().is_some_and(|ident| self.0.contains(ident)) {
            path.path = syn::parse_quote!(u32);
        }
    }
}
