//! Request bodies: the sizes of the comparison, and prompts that share prefixes as real ones do.
//!
//! A set has [`BODIES`] different bodies in [`GROUPS`] groups; the prompts of a group have their
//! first half in common. Sizes are bytes of prompt.

/// Bodies in a set.
pub const BODIES: usize = 128;
/// Groups that share the first half of the prompt.
pub const GROUPS: usize = 8;
/// Prompt sizes in bytes, with their names.
pub const SIZES: [(&str, usize); 4] =
    [("200B", 200), ("8KB", 8 << 10), ("64KB", 64 << 10), ("220KB", 220 << 10)];

const WORDS: [&str; 16] = [
    "the", "quick", "answer", "pods", "that", "hold", "a", "prefix", "serve", "it", "sooner",
    "than", "others", "of", "same", "load",
];

/// Prose of exactly `len` bytes, the same for the same seed.
pub fn prose(seed: u64, len: usize) -> String {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut text = String::with_capacity(len + 8);
    while text.len() < len {
        text.push_str(WORDS[rng.usize(..WORDS.len())]);
        text.push(if rng.u8(..12) == 0 { '.' } else { ' ' });
    }
    text.truncate(len);
    text
}

/// The prompt of body `index` of a set.
pub fn prompt(index: usize, len: usize) -> String {
    let group = (index % GROUPS) as u64;
    let mut text = prose(group, len / 2);
    text.push_str(&prose(1_000 + index as u64, len - len / 2));
    text
}

/// Body `index` of a set, for `/v1/completions`.
pub fn completion(index: usize, len: usize) -> String {
    let prompt = prompt(index, len);
    format!(r#"{{"model":"random","prompt":"{prompt}","max_tokens":16}}"#)
}

/// Body `index` of a set, for `/v1/chat/completions`: a system message and one of the user.
pub fn chat(index: usize, len: usize) -> String {
    let prompt = prompt(index, len);
    let (system, user) = prompt.split_at(len / 2);
    format!(
        r#"{{"model":"random","messages":[{{"role":"system","content":"{system}"}},{{"role":"user","content":"{user}"}}],"max_tokens":16}}"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_differ_and_groups_share_their_first_half() {
        let prompts: std::collections::BTreeSet<_> = (0..BODIES).map(|i| prompt(i, 200)).collect();
        assert_eq!(prompts.len(), BODIES);
        assert!(prompts.iter().all(|prompt| prompt.len() == 200));
        assert_eq!(prompt(1, 200)[..100], prompt(1 + GROUPS, 200)[..100]);
        assert_ne!(prompt(1, 200)[..100], prompt(2, 200)[..100]);
    }

    #[test]
    fn bodies_are_json() {
        for body in [completion(5, 8_192), chat(5, 8_192)] {
            let value: serde_json::Value = serde_json::from_str(&body).unwrap();
            assert_eq!(value["max_tokens"], 16);
        }
    }
}
