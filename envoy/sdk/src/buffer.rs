//! Borrowed bytes across the boundary.
//!
//! [`EnvoyBuffer`] and [`EnvoyMutBuffer`] have the layout of the C struct, so that a list from Envoy is viewed in place.
//! Invariant: pointer and length describe bytes that live for `'a`; a null pointer, which Envoy uses for "empty", is
//! read as the empty slice. Going the other way, [`module`] lends a slice to Envoy for the length of one call.

use std::fmt;
use std::marker::PhantomData;
use std::mem::{offset_of, size_of};
use std::ptr;
use std::slice;

use crate::abi::*;

/// Bytes in Envoy's memory, valid until the running hook returns or a setter changes them.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct EnvoyBuffer<'a> {
    data: *const u8,
    length: usize,
    lifetime: PhantomData<&'a [u8]>,
}

impl<'a> EnvoyBuffer<'a> {
    /// Views a string as a buffer.
    #[must_use]
    pub fn new(text: &'a str) -> Self {
        Self::new_from_slice(text.as_bytes())
    }

    /// Views bytes as a buffer.
    #[must_use]
    pub fn new_from_slice(bytes: &'a [u8]) -> Self {
        Self { data: bytes.as_ptr(), length: bytes.len(), lifetime: PhantomData }
    }

    /// The bytes.
    #[must_use]
    pub fn as_slice(&self) -> &'a [u8] {
        if self.data.is_null() {
            return &[];
        }
        // SAFETY: the type's invariant.
        unsafe { slice::from_raw_parts(self.data, self.length) }
    }

    /// # Safety
    /// The buffer's bytes must live for `'a`.
    pub(crate) unsafe fn from_raw(raw: envoy_dynamic_module_type_envoy_buffer) -> Self {
        Self { data: raw.ptr.cast(), length: raw.length, lifetime: PhantomData }
    }
}

impl Default for EnvoyBuffer<'_> {
    fn default() -> Self {
        Self { data: ptr::null(), length: 0, lifetime: PhantomData }
    }
}

impl fmt::Debug for EnvoyBuffer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.as_slice().escape_ascii())
    }
}

/// Bytes of a body in Envoy's memory that may be changed in place.
#[repr(C)]
pub struct EnvoyMutBuffer<'a> {
    data: *mut u8,
    length: usize,
    lifetime: PhantomData<&'a mut [u8]>,
}

impl<'a> EnvoyMutBuffer<'a> {
    /// Views bytes as a buffer.
    #[must_use]
    pub fn new(bytes: &'a mut [u8]) -> Self {
        Self { data: bytes.as_mut_ptr(), length: bytes.len(), lifetime: PhantomData }
    }

    /// The bytes.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        if self.data.is_null() {
            return &[];
        }
        // SAFETY: the type's invariant.
        unsafe { slice::from_raw_parts(self.data, self.length) }
    }

    /// The bytes, for changing them.
    #[must_use]
    pub fn as_slice_mut(&mut self) -> &mut [u8] {
        if self.data.is_null() {
            return &mut [];
        }
        // SAFETY: the type's invariant; a chunk is lent to one borrower at a time.
        unsafe { slice::from_raw_parts_mut(self.data, self.length) }
    }
}

impl Default for EnvoyMutBuffer<'_> {
    fn default() -> Self {
        Self { data: ptr::null_mut(), length: 0, lifetime: PhantomData }
    }
}

impl fmt::Debug for EnvoyMutBuffer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.as_slice().escape_ascii())
    }
}

/// A header of Envoy's, viewed in place: the pair has the layout of the C struct, which is checked here because the
/// language does not promise it.
pub(crate) type HeaderPair<'a> = (EnvoyBuffer<'a>, EnvoyBuffer<'a>);

const _: () = {
    type Raw = envoy_dynamic_module_type_envoy_buffer;
    type RawHeader = envoy_dynamic_module_type_envoy_http_header;
    assert!(size_of::<EnvoyBuffer<'_>>() == size_of::<Raw>());
    assert!(offset_of!(EnvoyBuffer<'_>, length) == offset_of!(Raw, length));
    assert!(size_of::<EnvoyMutBuffer<'_>>() == size_of::<Raw>());
    assert!(offset_of!(EnvoyMutBuffer<'_>, length) == offset_of!(Raw, length));
    assert!(size_of::<HeaderPair<'_>>() == size_of::<RawHeader>());
    assert!(offset_of!(HeaderPair<'_>, 0) == offset_of!(RawHeader, key_ptr));
    assert!(offset_of!(HeaderPair<'_>, 1) == offset_of!(RawHeader, value_ptr));
};

/// A list from Envoy, viewed in place.
///
/// # Safety
/// `first` is null, or points to `count` elements with the layout of `T` that live for `'a`.
pub(crate) unsafe fn list<'a, Raw, T>(first: *const Raw, count: usize) -> &'a [T] {
    const { assert!(size_of::<Raw>() == size_of::<T>() && align_of::<Raw>() == align_of::<T>()) };
    if first.is_null() || count == 0 {
        return &[];
    }
    // SAFETY: as required of the caller.
    unsafe { slice::from_raw_parts(first.cast(), count) }
}

/// Lends bytes to Envoy for one call.
pub(crate) fn module(bytes: impl AsRef<[u8]>) -> envoy_dynamic_module_type_module_buffer {
    let bytes = bytes.as_ref();
    envoy_dynamic_module_type_module_buffer { ptr: bytes.as_ptr().cast(), length: bytes.len() }
}

/// "No bytes at all", as opposed to an empty value.
pub(crate) const fn absent() -> envoy_dynamic_module_type_module_buffer {
    envoy_dynamic_module_type_module_buffer { ptr: ptr::null(), length: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_null_pointer_is_the_empty_slice() {
        assert_eq!(EnvoyBuffer::default().as_slice(), b"");
        assert_eq!(EnvoyMutBuffer::default().as_slice_mut(), b"");
        // SAFETY: a null list needs no elements.
        let none: &[EnvoyBuffer<'_>] =
            unsafe { list(ptr::null::<envoy_dynamic_module_type_envoy_buffer>(), 7) };
        assert!(none.is_empty());
    }

    #[test]
    fn a_list_is_viewed_in_place() {
        let raw = [envoy_dynamic_module_type_envoy_http_header {
            key_ptr: b"host".as_ptr().cast(),
            key_length: 4,
            value_ptr: b"pod-1".as_ptr().cast(),
            value_length: 5,
        }];
        // SAFETY: one header of static strings.
        let headers: &[HeaderPair<'_>] = unsafe { list(raw.as_ptr(), raw.len()) };
        assert_eq!(headers[0].0.as_slice(), b"host");
        assert_eq!(headers[0].1.as_slice(), b"pod-1");
    }
}
