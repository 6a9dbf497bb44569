//! Random numbers for names and identities, from the kernel.

use std::io;
use std::path::Path;

use rustix::rand::{GetRandomFlags, getrandom};

use crate::error::Error;

/// A random number that is not zero.
pub(crate) fn random_u64() -> Result<u64, Error> {
    let mut bytes = [0; 8];
    let failed = |e: io::Error| Error::io("read", Path::new("random numbers"), e);
    loop {
        // Up to 256 bytes are never interrupted and never short once the pool is initialised.
        getrandom(&mut bytes[..], GetRandomFlags::empty()).map_err(|e| failed(e.into()))?;
        let number = u64::from_le_bytes(bytes);
        if number != 0 {
            return Ok(number);
        }
    }
}
