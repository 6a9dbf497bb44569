//! The digest by which vLLM knows an image.
//!
//! `multimodal/hasher.py` of vLLM 0.32: a stream of chunks, each with its length (eight bytes,
//! little-endian) before it and each container with its kind, goes through one hash. For an image it
//! is the keyword arguments `image` and `model_id` in this order. An image is its original bytes;
//! where its pixels had to be brought into the form RGB, how that was done stands beside them.

use std::fmt::Write as _;

use sha2::Digest as _;

use super::payload::Payload;

const SEQUENCE: u8 = 1;
const MAPPING: u8 = 2;
const LEAF: u8 = 3;

/// The engine's `--mm-hasher-algorithm`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MediaHasher {
    /// BLAKE3, 32 bytes: the default.
    #[default]
    Blake3,
    /// SHA-256.
    Sha256,
    /// SHA-512.
    Sha512,
}

impl MediaHasher {
    /// Reads the engine's name for it.
    pub fn of_name(name: &str) -> Option<Self> {
        match name {
            "blake3" => Some(Self::Blake3),
            "sha256" => Some(Self::Sha256),
            "sha512" => Some(Self::Sha512),
            _ => None,
        }
    }

    /// The digest of an image in lower-case hexadecimal. `converted`: its pixels are not RGB as they
    /// are. `model`: what the engine was started with. One pass over the bytes.
    pub(crate) fn image(self, payload: &Payload<'_>, converted: bool, model: &str) -> String {
        let mut stream = Stream::new(self);
        stream.chunk(b"image");
        stream.bytes(&[LEAF]);
        stream.chunk(b"image");
        if converted {
            stream.container(MAPPING, 2);
            stream.chunk(b"io_config");
            stream.container(MAPPING, 2);
            stream.chunk(b"image_mode");
            stream.leaf(b"RGB");
            stream.chunk(b"rgba_background_color");
            stream.container(SEQUENCE, 3);
            (0..3).for_each(|_| stream.leaf(&255u64.to_le_bytes()));
            stream.chunk(b"data");
        }
        stream.bytes(&[LEAF]);
        stream.length(payload.len());
        payload.pieces(|piece| stream.bytes(piece));
        stream.chunk(b"model_id");
        stream.leaf(model.as_bytes());
        stream.finish()
    }
}

/// What is hashed, in the engine's framing.
enum Stream {
    Blake3(Box<blake3::Hasher>),
    Sha256(sha2::Sha256),
    Sha512(sha2::Sha512),
}

impl Stream {
    fn new(hasher: MediaHasher) -> Self {
        match hasher {
            MediaHasher::Blake3 => Self::Blake3(Box::default()),
            MediaHasher::Sha256 => Self::Sha256(sha2::Sha256::default()),
            MediaHasher::Sha512 => Self::Sha512(sha2::Sha512::default()),
        }
    }

    fn bytes(&mut self, bytes: &[u8]) {
        match self {
            Self::Blake3(hasher) => drop(hasher.update(bytes)),
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Sha512(hasher) => hasher.update(bytes),
        }
    }

    fn length(&mut self, length: usize) {
        self.bytes(&(length as u64).to_le_bytes());
    }

    fn chunk(&mut self, chunk: &[u8]) {
        self.length(chunk.len());
        self.bytes(chunk);
    }

    fn leaf(&mut self, chunk: &[u8]) {
        self.bytes(&[LEAF]);
        self.chunk(chunk);
    }

    fn container(&mut self, kind: u8, items: usize) {
        self.bytes(&[kind]);
        self.length(items);
    }

    fn finish(self) -> String {
        match self {
            Self::Blake3(hasher) => hasher.finalize().to_hex().to_string(),
            Self::Sha256(hasher) => hex(&hasher.finalize()),
            Self::Sha512(hasher) => hex(&hasher.finalize()),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        // Writing to a text cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}
