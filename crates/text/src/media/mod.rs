//! Media parts: a digest, and for images the size in pixels, read while the text streams by.

mod base64;
mod data_url;
mod image;

pub(crate) use data_url::DataUrl;
