//! Media parts: a digest, and for images the size in pixels, read while the text streams by; for
//! prompts in the engine's form also what the engine itself makes of an image.

mod base64;
mod data_url;
#[cfg(feature = "prompts")]
mod digest;
mod image;
#[cfg(feature = "prompts")]
mod payload;
#[cfg(feature = "prompts")]
mod picture;

pub(crate) use data_url::DataUrl;
#[cfg(feature = "prompts")]
pub use digest::MediaHasher;
#[cfg(feature = "prompts")]
pub(crate) use payload::Payload;
#[cfg(feature = "prompts")]
pub(crate) use picture::Picture;
