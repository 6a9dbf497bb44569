//! The token that names an endpoint to a client: its id in base64.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Standard base64 with padding (RFC 4648 §4). Tokens are never decoded: those of the pool are known.
pub(super) fn encode(id: &str) -> String {
    let mut token = String::with_capacity(id.len().div_ceil(3) * 4);
    for chunk in id.as_bytes().chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for digit in 0..4 {
            let value = bits >> (18 - 6 * digit) & 63;
            let letter = ALPHABET[value as usize];
            token.push(if digit > chunk.len() { '=' } else { char::from(letter) });
        }
    }
    token
}

#[cfg(test)]
mod tests {
    use super::encode;

    #[test]
    fn vectors_of_the_standard() {
        for (id, token) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foobar", "Zm9vYmFy"),
            ("default/vllm-0", "ZGVmYXVsdC92bGxtLTA="),
            ("~~~???", "fn5+Pz8/"),
        ] {
            assert_eq!(encode(id), token);
        }
    }
}
