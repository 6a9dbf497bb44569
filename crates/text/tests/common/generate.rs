//! Bodies, by seed: valid ones of every shape, mutations of them, and splits.

use super::reference::SMALL_PNG;

/// A small generator of pseudo-random numbers (SplitMix64): the same seed, the same body.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.below(from.len())]
    }
}

/// A body, mostly of a chat or completion request, mostly valid.
pub fn body(random: &mut Random) -> Vec<u8> {
    let mut out = String::new();
    let mut members = Vec::new();
    for _ in 0..random.below(9) {
        let key = random.pick(&[
            "model",
            "model",
            "messages",
            "messages",
            "messages",
            "prompt",
            "prompt",
            "prompt",
            "input",
            "input",
            "input",
            "items",
            "token_ids",
            "token_ids",
            "features",
            "sampling_params",
            "system",
            "instructions",
            "tools",
            "tools",
            "stream",
            "max_tokens",
            "max_completion_tokens",
            "max_output_tokens",
            "n",
            "cache_salt",
            "stream_options",
            "mod\\u0065l",
            "temperature",
            "metadata",
            "",
            "tool_choice",
        ]);
        let value = match key {
            "messages" => list(random, 4, message),
            "prompt" => prompt(random),
            "input" if random.below(2) == 0 => prompt(random),
            "input" => list(random, 4, message),
            "items" => list(random, 4, message),
            "token_ids" if random.below(4) > 0 => list(random, 6, id),
            "token_ids" => prompt(random),
            "features" => features(random, 0),
            "sampling_params" => object(random, &["max_tokens", "n", "x"], any),
            "system" | "instructions" => system(random),
            "tools" => list(random, 3, any),
            "stream_options" => object(random, &["include_usage", "x"], any),
            "model" | "cache_salt" | "mod\\u0065l" if random.below(8) > 0 => string(random),
            _ => any(random, 2),
        };
        members.push(format!("\"{key}\"{}:{}{value}", space(random), space(random)));
    }
    out.push_str(space(random));
    out.push('{');
    out.push_str(&members.join(","));
    out.push_str(space(random));
    out.push('}');
    out.push_str(space(random));
    out.into_bytes()
}

/// Changes a few bytes.
pub fn mutate(body: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..1 + random.below(3) {
        if body.is_empty() {
            return;
        }
        let at = random.below(body.len());
        match random.below(7) {
            0 => body[at] = random.next() as u8,
            1 => {
                body[at] =
                    *b"\"\\{}[],:0-.eEu \n\x1f\x7f\x80\xc3\xed\xf4".get(random.below(22)).unwrap();
            }
            2 => {
                body.remove(at);
            }
            3 => body.insert(at, *b"\"\\{}[],:09-.eE".get(random.below(14)).unwrap()),
            4 => body.truncate(at),
            5 => {
                let end = at + random.below(12).min(body.len() - at);
                let piece = body[at..end].to_vec();
                let to = random.below(body.len());
                body.splice(to..to, piece);
            }
            _ => {
                let end = at + random.below(12).min(body.len() - at);
                body.drain(at..end);
            }
        }
    }
}

/// Cuts a body into chunks, some of them empty.
pub fn split(body: &[u8], seed: u64) -> Vec<&[u8]> {
    let mut random = Random(seed);
    let longest = [1, 2, 5, 40, 300][random.below(5)];
    let mut chunks = Vec::new();
    let mut rest = body;
    while !rest.is_empty() {
        let (chunk, tail) = rest.split_at(random.below(longest + 1).min(rest.len()));
        chunks.push(chunk);
        rest = tail;
    }
    chunks
}

fn space(random: &mut Random) -> &'static str {
    random.pick(&["", "", "", "", " ", "\n", "\t\r\n "])
}

fn string(random: &mut Random) -> String {
    let mut out = String::from("\"");
    for _ in 0..random.below(5) {
        let piece = random.pick(&[
            "a",
            "hello ",
            "llama",
            "s",
            "é",
            "€uro",
            "𝄞",
            "\\n",
            "\\\"",
            "\\\\",
            "\\/",
            "\\u0041",
            "\\u00e9",
            "\\ud834\\udd1e",
            "\\u2028",
            "<&>",
            "\\u0000",
            "\\uD800",
            "\\udc00",
            "\u{7f}",
            "The quick brown fox jumps over the lazy dog; the dog does not mind at all, really. ",
            "四十四字节的中文文本，用来测试宽字符的路径，足够长以跨越块边界，是的。",
        ]);
        // Lone surrogates make the body invalid: rarely.
        if !piece.to_ascii_lowercase().starts_with("\\ud")
            || piece.len() > 6
            || random.below(40) == 0
        {
            out.push_str(piece);
        }
    }
    out.push('"');
    out
}

fn number(random: &mut Random) -> String {
    random
        .pick(&[
            "0",
            "1",
            "42",
            "-1",
            "-0",
            "1.5",
            "100",
            "1e2",
            "2.0",
            "4294967295",
            "4294967296",
            "9007199254740991",
            "0.25",
            "1E+3",
            "-7e-1",
        ])
        .to_owned()
}

fn any(random: &mut Random, depth: usize) -> String {
    match random.below(if depth == 0 { 4 } else { 6 }) {
        0 => string(random),
        1 => number(random),
        2 => random.pick(&["true", "false"]).to_owned(),
        3 => "null".to_owned(),
        4 => {
            let items: Vec<_> = (0..random.below(4)).map(|_| any(random, depth - 1)).collect();
            format!("[{}{}]", space(random), items.join(","))
        }
        _ => {
            let members: Vec<_> = (0..random.below(4))
                .map(|_| format!("{}:{}", string(random), any(random, depth - 1)))
                .collect();
            format!("{{{}}}", members.join(&format!(",{}", space(random))))
        }
    }
}

fn list(random: &mut Random, most: usize, item: impl Fn(&mut Random, usize) -> String) -> String {
    if random.below(12) == 0 {
        return any(random, 1);
    }
    let items: Vec<_> = (0..random.below(most + 1)).map(|_| item(random, 2)).collect();
    format!("[{}]", items.join(&format!("{},", space(random))))
}

/// An object with some of these keys, in any order, sometimes twice.
fn object(
    random: &mut Random,
    keys: &[&str],
    value: impl Fn(&mut Random, usize) -> String,
) -> String {
    let members: Vec<_> = (0..random.below(keys.len() + 2))
        .map(|_| format!("\"{}\":{}", random.pick(keys), value(random, 1)))
        .collect();
    format!("{{{}}}", members.join(","))
}

fn prompt(random: &mut Random) -> String {
    match random.below(8) {
        0..=2 => string(random),
        3 | 4 => list(random, 4, |random, _| string(random)),
        5 => list(random, 5, id),
        6 => list(random, 3, |random, _| list(random, 3, id)),
        _ => list(random, 3, any),
    }
}

fn id(random: &mut Random, _depth: usize) -> String {
    random.pick(&["0", "7", "128000", "4294967295", "17"]).to_owned()
}

fn features(random: &mut Random, depth: usize) -> String {
    const KEYS: &[&str] = &["mm_hashes", "mm_placeholders", "mm_placeholders", "kwargs_data"];
    const MODALITIES: &[&str] =
        &["image", "image", "ima\\u0067e", "audio", "a long name of a modality"];
    const PLACE: &[&str] = &["offset", "offset", "length", "length", "is_embed"];
    fn item(random: &mut Random, _: usize) -> String {
        match random.below(40) {
            0 => any(random, 1),
            1 => "null".into(),
            at if at % 2 == 0 => string(random),
            _ => object(random, PLACE, |random, _| random.below(30).to_string()),
        }
    }
    fn hashes(random: &mut Random, _: usize) -> String {
        list(random, 4, |random, _| string(random))
    }
    fn places(random: &mut Random, _: usize) -> String {
        list(random, 4, |random, _| object(random, PLACE, |random, _| random.below(30).to_string()))
    }
    match random.below(16) {
        0 => any(random, 2),
        1 => object(random, KEYS, |random, _| {
            object(random, MODALITIES, |random, _| list(random, 3, item))
        }),
        _ => format!(
            r#"{{"mm_hashes":{},"kwargs_data":{},"mm_placeholders":{}}}"#,
            object(random, MODALITIES, hashes),
            any(random, depth + 1),
            object(random, MODALITIES, places)
        ),
    }
}

fn system(random: &mut Random) -> String {
    let block = |random: &mut Random, _: usize| match random.below(6) {
        0 => "{\"text\":\"x-anthropic-billing-header: 1\"}".to_owned(),
        1 => "{\"text\":\"x-anthropic\",\"type\":\"text\"}".to_owned(),
        _ => object(random, &["type", "text", "cache_control"], |random, _| string(random)),
    };
    match random.below(3) {
        0 => string(random),
        _ => list(random, 3, block),
    }
}

fn message(random: &mut Random, _depth: usize) -> String {
    if random.below(30) == 0 {
        return any(random, 1);
    }
    let mut members = Vec::new();
    for _ in 0..random.below(4) {
        members.push(match random.below(10) {
            0..=3 => format!("\"role\":{}", role(random)),
            4..=7 => format!("\"content\":{}", content(random)),
            8 => {
                let key = random.pick(&["tool_calls", "arguments", "name"]);
                format!("\"{key}\":{}", any(random, 2))
            }
            _ => {
                let key = random.pick(&["output", "summary", "cache_control"]);
                format!("\"{key}\":{}", content(random))
            }
        });
    }
    format!("{{{}}}", members.join(","))
}

fn role(random: &mut Random) -> String {
    match random.below(12) {
        0 => "null".to_owned(),
        1 => any(random, 0),
        _ => random.pick(&["\"user\"", "\"system\"", "\"assistant\"", "\"\""]).to_owned(),
    }
}

fn content(random: &mut Random) -> String {
    match random.below(6) {
        0 | 1 => string(random),
        2 => "null".to_owned(),
        _ => list(random, 3, part),
    }
}

fn part(random: &mut Random, _depth: usize) -> String {
    if random.below(40) == 0 {
        return any(random, 1);
    }
    let mut members = Vec::new();
    for _ in 0..1 + random.below(3) {
        members.push(match random.below(16) {
            13 => format!("\"source\":{}", source(random)),
            14 => {
                let key = random.pick(&["thinking", "id", "name", "refusal", "cache_control"]);
                format!("\"{key}\":{}", string(random))
            }
            15 => match random.below(2) {
                0 => format!("\"input\":{}", any(random, 2)),
                _ => {
                    let part = |random: &mut Random, _: usize| {
                        object(random, &["text", "source", "type"], |random, _| {
                            match random.below(2) {
                                0 => source(random),
                                _ => string(random),
                            }
                        })
                    };
                    format!("\"content\":{}", list(random, 2, part))
                }
            },
            0..=4 => format!(
                "\"type\":{}",
                random.pick(&[
                    "\"text\"",
                    "\"text\"",
                    "\"image_url\"",
                    "\"input_audio\"",
                    "\"video_url\"",
                    "\"a type of which nobody has heard\"",
                    "null",
                ])
            ),
            5..=8 => format!("\"text\":{}", string(random)),
            9 | 10 => format!("\"image_url\":{}", image(random)),
            11 => format!(
                "\"input_audio\":{}",
                object(random, &["data", "format"], |random, _| string(random))
            ),
            _ => format!("\"video_url\":{}", object(random, &["url"], |random, _| string(random))),
        });
    }
    format!("{{{}}}", members.join(","))
}

fn source(random: &mut Random) -> String {
    match random.below(6) {
        0 => string(random),
        1 => format!("{{\"data\":\"{}\"}}", SMALL_PNG.rsplit(',').next().unwrap()),
        _ => object(random, &["type", "url", "data", "media_type"], |random, _| string(random)),
    }
}

fn image(random: &mut Random) -> String {
    match random.below(10) {
        0 => any(random, 1),
        1..=3 => format!("{{\"detail\":\"low\",\"url\":\"{SMALL_PNG}\"}}"),
        _ => object(random, &["url", "detail"], |random, _| string(random)),
    }
}
