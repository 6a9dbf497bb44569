//! Values recorded from the reference scheduler.

use inlane_text::{
    Api, BlockHasher, BlockSize, Limits, MediaRules, Modality, RequestError, ScanError, Scanner,
    Sink, TokenCollector, VideoEstimate, chain, seed,
};
use std::num::NonZeroU32;
use xxhash_rust::xxh64::xxh64;

fn tokens(size: u32) -> BlockSize {
    BlockSize::Tokens(NonZeroU32::new(size).expect("not zero"))
}

fn hashes(model: &str, salt: &str, block: u32, prompts: &[&[u32]]) -> Vec<Vec<String>> {
    let mut hasher = BlockHasher::new(tokens(block), 100);
    for ids in prompts {
        hasher.begin_prompt();
        hasher.token_ids(ids);
        hasher.end_prompt();
    }
    let start = seed(model, salt);
    let hex =
        |contents: &[u64]| chain(contents, start).map(|hash| format!("{hash:016x}")).collect();
    hasher.prompts().map(|prompt| hex(prompt.contents)).collect()
}

fn collect(api: Api, body: &str) -> TokenCollector {
    let mut scanner = Scanner::new(api, Limits::default(), TokenCollector::new());
    scanner.feed(body.as_bytes()).expect("valid");
    scanner.finish().expect("a request");
    assert!(!scanner.needs_second_pass());
    scanner.sink().clone()
}

#[test]
fn block_hashes() {
    let ids: Vec<u32> = (0..200).collect();
    assert_eq!(
        hashes("llama", "", 64, &[&ids]),
        [["4b4e425978615622", "72cf2ef1006f2d73", "084518dccfeb77dd", "1c2dc9838b2754f3"]]
    );
    assert_eq!(
        hashes("model-a", "s", 4, &[&[1, 2, 3, 4, 5, 6]]),
        [["f198522491c705b3", "6b1b99f6dcb8f4df"]]
    );
    assert_eq!(
        hashes("model-a", "", 4, &[&[1, 2, 3, 4], &[1, 2, 3, 4]]),
        [["df6c579744e12147"], ["df6c579744e12147"]]
    );
    assert_eq!(hashes("m", "", 4, &[]), Vec::<Vec<String>>::new());
    assert_eq!(hashes("m", "", 4, &[&[]]), [Vec::<String>::new()]);
}

#[test]
fn a_prompt_from_a_body_hashes_like_its_tokens() {
    let mut scanner =
        Scanner::new(Api::Completions, Limits::default(), BlockHasher::new(tokens(64), 100));
    let ids: Vec<String> = (0..200).map(|id| id.to_string()).collect();
    scanner.feed(format!(r#"{{"prompt":[{}]}}"#, ids.join(",")).as_bytes()).expect("valid");
    scanner.finish().expect("a request");
    let prompt = scanner.sink().prompts().next().expect("a prompt");
    assert_eq!((prompt.tokens, prompt.bytes), (200, 800));
    let first = chain(prompt.contents, seed("llama", "")).next();
    assert_eq!(first, Some(0x4b4e425978615622));
}

#[test]
fn estimated_tokens() {
    let completion = collect(Api::Completions, r#"{"prompt":"!hi!"}"#);
    assert_eq!(completion.prompts()[0].tokens, [0x21696821]);

    let chat = collect(
        Api::ChatCompletions,
        r#"{"model":"m","messages":[{"role":"user","content":[
            {"type":"text","text":"What is it?"},
            {"type":"image_url","image_url":{"url":"http://x/y.png"}}]}]}"#,
    );
    let prompt = &chat.prompts()[0];
    assert_eq!(prompt.tokens.len(), 229);
    assert_eq!(
        prompt.tokens[..8],
        [
            1919251317, 1952540759, 544434464, 4158569, 2501407695, 2501407695, 2501407695,
            2501407695
        ]
    );
    let [feature] = prompt.features[..] else { panic!("one image") };
    assert_eq!((feature.modality, feature.offset, feature.length), (Modality::Image, 4, 225));
    assert_eq!(feature.to_string(), "image a090cef6951873cf 4+225");
}

/// The prompt of a conversation as text, and its media.
fn packed(api: Api, body: &str) -> (String, Vec<String>) {
    let mut scanner = Scanner::new(api, Limits::default(), TokenCollector::new());
    scanner.feed(body.as_bytes()).expect("valid");
    scanner.finish().expect("a request");
    if scanner.needs_second_pass() {
        scanner.second_pass(&[body.as_bytes()]).expect("the same body");
    }
    let [prompt] = scanner.sink().prompts() else { panic!("one prompt") };
    let of_media = |at: u64| {
        prompt.features.iter().any(|f| (f.offset..f.offset + u64::from(f.length)).contains(&at))
    };
    let text = (0..).zip(&prompt.tokens).filter(|(at, _)| !of_media(*at));
    let bytes: Vec<u8> =
        text.flat_map(|(_, token)| token.to_le_bytes()).filter(|b| *b != 0).collect();
    let features = prompt.features.iter().map(ToString::to_string).collect();
    (String::from_utf8(bytes).expect("text"), features)
}

#[test]
fn messages_are_packed_as_tools_system_turns() {
    let turns = r#""messages":[
        {"role":"user","content":"look "},
        {"role":"assistant","content":[{"type":"thinking","thinking":"hm ","signature":"s"},
            {"type":"tool_use","id":"t1","name":"find","input":{"what":["a","b"]}}]},
        {"role":"user","content":[{"type":"tool_result","tool_use_id":"t1","content":[
            {"type":"text","text":"found "}]},
            {"type":"image","source":{"type":"base64","media_type":"image/png",
                "data":"iVBORw0KGgoAAAANSUhEUgAAAEAAAAAwCAIAAAA="}},
            {"type":"text","text":"end","cache_control":{"type":"ephemeral"}}]}]"#;
    let system = r#""system":[{"type":"text","text":"x-anthropic-billing-header: cc=1"},
        {"type":"text","text":"be brief "}]"#;
    let tools = r#""tools":[{"name":"find","input_schema":{}}]"#;
    let json = r#"[{"input_schema":{},"name":"find"}]"#;
    let text = format!("{json}be brief userlook assistanthm t1findwhatabuserfound end");
    // A PNG of 64 by 48 pixels has 3 tokens.
    for body in [
        format!(r#"{{{tools},{system},{turns}}}"#),
        format!(r#"{{"max_tokens":5,{turns},"model":"m",{system},{tools}}}"#),
        format!(r#"{{{system},{turns},{tools}}}"#),
        format!(r#"{{"messages":[],{system},{tools},{turns}}}"#),
    ] {
        let (got, media) = packed(Api::Messages, &body);
        assert_eq!(got, text, "{body}");
        assert!(media.len() == 1 && media[0].ends_with("+3"), "{media:?}");
    }
    let plain = r#"{"messages":[{"role":"user","content":"hi"}],"system":"x-anthropic"}"#;
    assert_eq!(packed(Api::Messages, plain).0, "x-anthropicuserhi");
}

#[test]
fn responses_are_packed_as_tools_instructions_input() {
    let input = r#""input":[
        {"type":"message","role":"user","content":[{"type":"input_text","text":"look "},
            {"type":"input_image","image_url":"http://x/y.png","detail":"low"}]},
        {"type":"reasoning","id":"rs_1","summary":[{"type":"summary_text","text":"hm "}]},
        {"type":"function_call","id":"fc_1","call_id":"c1","name":"find","arguments":"{}"},
        {"type":"function_call_output","call_id":"c1","output":"found"}]"#;
    let body = format!(r#"{{{input},"instructions":"be brief "}}"#);
    let (text, media) = packed(Api::Responses, &body);
    assert_eq!(text, "be brief userlook hm find{}found");
    assert_eq!(media, ["image a090cef6951873cf 5+225"]);
    assert_eq!(packed(Api::Responses, r#"{"input":"hello"}"#).0, "hello");
}

#[test]
fn media_estimates() {
    let chat = collect(
        Api::ChatCompletions,
        r#"{"messages":[{"content":[
            {"type":"video_url","video_url":{"url":"v"}},
            {"type":"input_audio","input_audio":{"data":"abcdef","format":"wav"}},
            {"type":"input_audio","input_audio":{"data":"x"}}]}]}"#,
    );
    let lengths: Vec<u32> = chat.prompts()[0].features.iter().map(|f| f.length).collect();
    assert_eq!(lengths, [4500, 3, 1]);
    let digests: Vec<u64> = chat.prompts()[0].features.iter().map(|f| f.hash).collect();
    assert_eq!(digests, [xxh64(b"v", 0), xxh64(b"abcdefwav", 0), xxh64(b"x", 0)]);

    let mut scanner = Scanner::new(Api::ChatCompletions, Limits::default(), TokenCollector::new());
    let video = VideoEstimate { seconds: 0.5, ..Default::default() };
    scanner.set_media_rules(MediaRules { video_tokens: video.tokens(), ..Default::default() });
    scanner
        .feed(br#"{"messages":[{"content":[{"type":"video_url","video_url":{"url":"v"}}]}]}"#)
        .expect("valid");
    scanner.finish().expect("a request");
    assert_eq!(scanner.sink().prompts()[0].tokens.len(), 225);
}

#[test]
fn error_texts() {
    let refused = |api, body: &str| {
        let mut scanner = Scanner::new(api, Limits::default(), ());
        let fed = scanner.feed(body.as_bytes());
        let error = fed.err().or_else(|| scanner.finish().err()).expect("refused");
        assert_eq!(scanner.feed(b" "), Err(error), "an error stays");
        error
    };
    let chat = "invalid chat completions request: must have valid messages field";
    for body in [
        "{}",
        r#"{"messages":[]}"#,
        r#"{"messages":null}"#,
        r#"{"messages":"hi"}"#,
        r#"{"messages":["hi"]}"#,
        r#"{"messages":[{"role":5}]}"#,
        r#"{"messages":[{"content":5}]}"#,
        r#"{"messages":[{"content":["hi"]}]}"#,
        r#"{"messages":[{"content":[{"type":"image_url","image_url":"http://x/y.png"}]}]}"#,
    ] {
        assert_eq!(refused(Api::ChatCompletions, body).to_string(), chat, "{body}");
    }
    let completion = "invalid completions request: must have prompt field";
    for body in [
        "{}",
        r#"{"prompt":""}"#,
        r#"{"prompt":[]}"#,
        r#"{"prompt":null}"#,
        r#"{"prompt":{"a":1}}"#,
        r#"{"prompt":[[1,2],3]}"#,
        r#"{"prompt":[1,[2]]}"#,
        r#"{"prompt":[[1,2],[]]}"#,
        r#"{"prompt":[["a"]]}"#,
        r#"{"prompt":[[[1]]]}"#,
        r#"{"prompt":["a",1]}"#,
        r#"{"prompt":[1,"a"]}"#,
        r#"{"prompt":[1.0]}"#,
        r#"{"prompt":[-1]}"#,
        r#"{"prompt":[4294967296]}"#,
    ] {
        assert_eq!(refused(Api::Completions, body).to_string(), completion, "{body}");
    }
    let messages = "invalid messages request: must have at least one message";
    for body in ["{}", r#"{"messages":[]}"#, r#"{"messages":null}"#] {
        assert_eq!(refused(Api::Messages, body).to_string(), messages, "{body}");
    }
    let message = "error parsing messages request: expected messages with a role and content";
    for body in [
        r#"{"messages":"hi"}"#,
        r#"{"messages":["hi"]}"#,
        r#"{"messages":[{"role":5,"content":"a"}]}"#,
        r#"{"messages":[{"role":"user","content":5}]}"#,
        r#"{"messages":[{"role":"user","content":["hi"]}]}"#,
    ] {
        assert_eq!(refused(Api::Messages, body).to_string(), message, "{body}");
    }
    let input = "invalid responses request: must have input field";
    for body in ["{}", r#"{"input":null}"#] {
        assert_eq!(refused(Api::Responses, body).to_string(), input, "{body}");
    }
    let input = "invalid embeddings request: must have input field";
    for body in ["{}", r#"{"input":[]}"#, r#"{"input":{}}"#] {
        assert_eq!(refused(Api::Embeddings, body).to_string(), input, "{body}");
    }
    let items = "invalid conversations request: must have items field";
    for body in
        ["{}", r#"{"items":[]}"#, r#"{"items":null}"#, r#"{"items":"hi"}"#, r#"{"items":[5]}"#]
    {
        assert_eq!(refused(Api::Conversations, body).to_string(), items, "{body}");
    }
    let prompt = "invalid images generations request: must have prompt field";
    for body in ["{}", r#"{"prompt":""}"#, r#"{"prompt":["a"]}"#, r#"{"prompt":[1]}"#] {
        assert_eq!(refused(Api::ImagesGenerations, body).to_string(), prompt, "{body}");
    }
    let ids = "invalid generate request: must have non-empty token_ids field";
    for body in [
        "{}",
        r#"{"token_ids":[]}"#,
        r#"{"token_ids":null}"#,
        r#"{"token_ids":"hi"}"#,
        r#"{"token_ids":[[1]]}"#,
        r#"{"token_ids":[1,"a"]}"#,
        r#"{"token_ids":[1.5]}"#,
        r#"{"token_ids":[-1]}"#,
        r#"{"token_ids":[4294967296]}"#,
        r#"{"prompt":[1]}"#,
    ] {
        assert_eq!(refused(Api::Generate, body).to_string(), ids, "{body}");
    }
    for body in ["[1,2]", "5", "null", "\"x\""] {
        let error = refused(Api::Completions, body);
        assert_eq!(error, ScanError::Request(RequestError::NotAnObject), "{body}");
        assert!(error.to_string().starts_with("error unmarshaling request bodyMap: "));
    }
    assert_eq!(
        refused(Api::Completions, "").to_string(),
        "error unmarshaling request bodyMap: unexpected end of the body at byte 0"
    );
    assert_eq!(
        refused(Api::Completions, "{\"a\":tru}").to_string(),
        "error unmarshaling request bodyMap: expected a value at byte 8"
    );
}

#[test]
fn a_generate_request_has_its_limits_in_its_sampling_parameters() {
    let body = r#"{"model":"m","token_ids":[7,4294967295],"max_tokens":1,"n":2,"stream":true,
        "sampling_params":{"max_tokens":16,"n":3,"temperature":0},"cache_salt":"s","priority":-1,
        "stream_options":{"include_usage":true}}"#;
    let mut scanner = Scanner::new(Api::Generate, Limits::default(), TokenCollector::new());
    scanner.feed(body.as_bytes()).expect("valid");
    let summary = scanner.finish().expect("a request");
    assert_eq!((summary.model, summary.cache_salt), ("m", "s"));
    assert_eq!((summary.max_tokens, summary.n), (Some(16), Some(3)));
    assert!(summary.stream && summary.include_usage && summary.prompts == 1);
    assert_eq!(scanner.sink().prompts()[0].tokens, [7, u32::MAX]);
}
