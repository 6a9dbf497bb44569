//! The families of a vLLM page, in its order and with its words.
//!
//! Families that a simulator has nothing to say about are present and zero, so that whoever reads the page of a
//! real server finds the same names here.

use super::{
    page::{Gauge, Labels, Page, Section, Slot, Value},
    stats::{Counter, Distribution, Stats},
};

/// What the page says about the configuration.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The model name that labels carry.
    pub model: &'a str,
    /// Tokens per block.
    pub block_size: usize,
    /// Number of blocks; `None` without block cache.
    pub blocks: Option<u32>,
    /// Longest request, in tokens.
    pub model_len: usize,
    /// When counting began, as Unix time in seconds.
    pub created: f64,
}

/// Compiles the page.
pub fn page(facts: &Facts<'_>) -> Page {
    let mut page = Page::new(facts.created);
    let model = Labels::new([("engine", "0"), ("model_name", facts.model)]);
    process(&mut page);
    engine_state(&mut page, &model);
    cache_tokens(&mut page, &model);
    requests(&mut page, &model, facts);
    let bounds = Stats::new(facts.model_len);
    for (name, help, distribution) in HISTOGRAMS {
        page.histogram(name, help, &model, distribution, bounds[distribution].bounds());
    }
    page.section(Section::Lora);
    cache_config(&mut page, facts);
    page.section(Section::Http);
    tool_calls(&mut page, facts);
    page
}

const ZERO: Value = Value::Fixed(0.0);

fn live(gauge: Gauge) -> Value {
    Value::Live(Slot::Gauge(gauge))
}

fn counted(counter: Counter) -> Value {
    Value::Live(Slot::Counter(counter))
}

/// The interpreter's and the process's own families. There is no interpreter here: its collectors stand still.
fn process(page: &mut Page) {
    for (name, help) in [
        ("python_gc_objects_collected_total", "Objects collected during gc"),
        ("python_gc_objects_uncollectable_total", "Uncollectable objects found during GC"),
        ("python_gc_collections_total", "Number of times this generation was collected"),
    ] {
        let generations = ["0", "1", "2"];
        page.bare_counter(
            name,
            help,
            generations.map(|g| (Labels::new([("generation", g)]), ZERO)),
        );
    }
    let version = [
        ("implementation", env!("CARGO_PKG_NAME")),
        ("major", env!("CARGO_PKG_VERSION_MAJOR")),
        ("minor", env!("CARGO_PKG_VERSION_MINOR")),
        ("patchlevel", env!("CARGO_PKG_VERSION_PATCH")),
        ("version", env!("CARGO_PKG_VERSION")),
    ];
    let one = Value::Fixed(1.0);
    page.gauge("python_info", "Python platform information", [(Labels::new(version), one)]);
    let none = Labels::default;
    for (name, help, gauge) in [
        ("process_virtual_memory_bytes", "Virtual memory size in bytes.", Gauge::VirtualMemory),
        ("process_resident_memory_bytes", "Resident memory size in bytes.", Gauge::ResidentMemory),
        (
            "process_start_time_seconds",
            "Start time of the process since unix epoch in seconds.",
            Gauge::StartTime,
        ),
    ] {
        page.gauge(name, help, [(none(), live(gauge))]);
    }
    page.bare_counter(
        "process_cpu_seconds_total",
        "Total user and system CPU time spent in seconds.",
        [(none(), live(Gauge::Cpu))],
    );
    let open = "Number of open file descriptors.";
    page.gauge("process_open_fds", open, [(none(), live(Gauge::OpenFiles))]);
    let max = "Maximum number of open file descriptors.";
    page.gauge("process_max_fds", max, [(none(), live(Gauge::MaxFiles))]);
}

fn engine_state(page: &mut Page, model: &Labels<'_>) {
    for (name, help) in [
        (
            "vllm:estimated_flops_per_gpu",
            "Estimated number of floating point operations per GPU (for Model Flops Utilization \
             calculations).",
        ),
        (
            "vllm:estimated_read_bytes_per_gpu",
            "Estimated number of bytes read from memory per GPU (for Model Flops Utilization \
             calculations).",
        ),
        (
            "vllm:estimated_write_bytes_per_gpu",
            "Estimated number of bytes written to memory per GPU (for Model Flops Utilization \
             calculations).",
        ),
    ] {
        page.counter(name, help, [(model.clone(), ZERO)]);
    }
    page.gauge(
        "vllm:num_requests_running",
        "Number of requests in model execution batches.",
        [(model.clone(), live(Gauge::Running))],
    );
    page.gauge(
        "vllm:num_requests_waiting",
        "Number of requests waiting to be processed.",
        [(model.clone(), live(Gauge::Waiting))],
    );
    page.gauge(
        "vllm:num_requests_waiting_by_reason",
        "Number of waiting requests by reason. Reason labels: 'capacity' = waiting for scheduling \
         capacity; 'deferred' = deferred by transient constraints (LoRA budget, KV transfer, blocked \
         status). Sum of all reasons equals vllm:num_requests_waiting.",
        [
            (model.with("reason", "capacity"), live(Gauge::Capacity)),
            (model.with("reason", "deferred"), live(Gauge::Deferred)),
        ],
    );
    page.gauge(
        "vllm:engine_sleep_state",
        "Engine sleep state; awake = 0 means engine is sleeping; awake = 1 means engine is awake; \
         weights_offloaded = 1 means sleep level 1; discard_all = 1 means sleep level 2.",
        [("awake", 1.0), ("weights_offloaded", 0.0), ("discard_all", 0.0)]
            .map(|(state, value)| (model.with("sleep_state", state), Value::Fixed(value))),
    );
    page.gauge(
        "vllm:kv_cache_usage_perc",
        "KV-cache usage. 1 means 100 percent usage.",
        [(model.clone(), live(Gauge::CacheUsage))],
    );
}

fn cache_tokens(page: &mut Page, model: &Labels<'_>) {
    for (name, help, value) in [
        (
            "vllm:prefix_cache_queries",
            "Prefix cache queries, in terms of number of queried tokens.",
            counted(Counter::PrefixQueries),
        ),
        (
            "vllm:prefix_cache_hits",
            "Prefix cache hits, in terms of number of cached tokens.",
            counted(Counter::PrefixHits),
        ),
        (
            "vllm:external_prefix_cache_queries",
            "External prefix cache queries from KV connector cross-instance cache sharing, in terms of \
             number of queried tokens.",
            ZERO,
        ),
        (
            "vllm:external_prefix_cache_hits",
            "External prefix cache hits from KV connector cross-instance cache sharing, in terms of \
             number of cached tokens.",
            counted(Counter::PromptTokensTransferred),
        ),
        (
            "vllm:mm_cache_queries",
            "Multi-modal cache queries, in terms of number of queried items.",
            ZERO,
        ),
        ("vllm:mm_cache_hits", "Multi-modal cache hits, in terms of number of cached items.", ZERO),
        (
            "vllm:num_preemptions",
            "Cumulative number of preemption from the engine.",
            counted(Counter::Preemptions),
        ),
        (
            "vllm:prompt_tokens",
            "Number of prefill tokens processed.",
            counted(Counter::PromptTokens),
        ),
    ] {
        page.counter(name, help, [(model.clone(), value)]);
    }
    page.counter(
        "vllm:prompt_tokens_by_source",
        "Number of prompt tokens by source.",
        [
            ("local_compute", Counter::PromptTokensComputed),
            ("local_cache_hit", Counter::PromptTokensCached),
            ("external_kv_transfer", Counter::PromptTokensTransferred),
        ]
        .map(|(source, counter)| (model.with("source", source), counted(counter))),
    );
    page.counter(
        "vllm:prompt_tokens_cached",
        "Number of cached prompt tokens (local + external).",
        [(model.clone(), counted(Counter::PromptTokensCached))],
    );
    page.counter(
        "vllm:prompt_tokens_cached_by_source",
        "Prefix-cache hit tokens by the cache tier that supplied them: device (local HBM), host \
         (offloaded to DRAM), disk, p2p (transferred from another vLLM instance) or \
         external_unspecified. Counted at admission; sums to vllm:prefix_cache_hits + \
         vllm:external_prefix_cache_hits.",
        [
            ("device", counted(Counter::PrefixHits)),
            ("host", ZERO),
            ("p2p", counted(Counter::PromptTokensTransferred)),
            ("disk", ZERO),
            ("external_unspecified", ZERO),
        ]
        .map(|(source, value)| (model.with("source", source), value)),
    );
}

fn requests(page: &mut Page, model: &Labels<'_>, facts: &Facts<'_>) {
    page.counter(
        "vllm:generation_tokens",
        "Number of generation tokens processed.",
        [(model.clone(), counted(Counter::GenerationTokens))],
    );
    page.counter(
        "vllm:request_success",
        "Count of successfully processed requests.",
        [
            ("stop", counted(Counter::FinishedStop)),
            ("length", counted(Counter::FinishedLength)),
            ("abort", counted(Counter::FinishedAbort)),
            ("error", ZERO),
            ("repetition", ZERO),
        ]
        .map(|(reason, value)| (model.with("finished_reason", reason), value)),
    );
    let model = Labels::new([("model_name", facts.model)]);
    page.counter(
        "vllm:admission_rejections",
        "Number of admission attempts rejected by a queue limit, by reason.",
        [
            ("max_num_queued_reqs", counted(Counter::RejectedQueueFull)),
            ("max_num_queued_tokens", ZERO),
        ]
        .map(|(reason, value)| (model.with("reason", reason), value)),
    );
}

const HISTOGRAMS: [(&str, &str, Distribution); 16] = [
    (
        "vllm:request_prompt_tokens",
        "Number of prefill tokens processed.",
        Distribution::PromptTokens,
    ),
    (
        "vllm:request_generation_tokens",
        "Number of generation tokens processed.",
        Distribution::GenerationTokens,
    ),
    (
        "vllm:iteration_tokens_total",
        "Histogram of number of tokens per engine_step.",
        Distribution::IterationTokens,
    ),
    (
        "vllm:request_max_num_generation_tokens",
        "Histogram of maximum number of requested generation tokens.",
        Distribution::MaxGenerationTokens,
    ),
    ("vllm:request_params_n", "Histogram of the n request parameter.", Distribution::ParamsN),
    (
        "vllm:request_params_max_tokens",
        "Histogram of the max_tokens request parameter.",
        Distribution::ParamsMaxTokens,
    ),
    (
        "vllm:time_to_first_token_seconds",
        "Histogram of time to first token in seconds.",
        Distribution::FirstToken,
    ),
    (
        "vllm:inter_token_latency_seconds",
        "Histogram of inter-token latency in seconds.",
        Distribution::InterToken,
    ),
    (
        "vllm:request_time_per_output_token_seconds",
        "Histogram of time_per_output_token_seconds per request.",
        Distribution::PerOutputToken,
    ),
    (
        "vllm:e2e_request_latency_seconds",
        "Histogram of e2e request latency in seconds.",
        Distribution::EndToEnd,
    ),
    (
        "vllm:request_queue_time_seconds",
        "Histogram of time spent in WAITING phase for request.",
        Distribution::Queue,
    ),
    (
        "vllm:request_inference_time_seconds",
        "Histogram of time spent in RUNNING phase for request.",
        Distribution::Inference,
    ),
    (
        "vllm:request_prefill_time_seconds",
        "Histogram of time spent in PREFILL phase for request.",
        Distribution::Prefill,
    ),
    (
        "vllm:request_decode_time_seconds",
        "Histogram of time spent in DECODE phase for request.",
        Distribution::Decode,
    ),
    (
        "vllm:request_num_preemptions",
        "Histogram of the number of times a request was preempted.",
        Distribution::Preemptions,
    ),
    (
        "vllm:request_prefill_kv_computed_tokens",
        "Histogram of new KV tokens computed during prefill (excluding cached tokens).",
        Distribution::PrefillComputed,
    ),
];

/// One sample whose labels are the engine's cache settings.
fn cache_config(page: &mut Page, facts: &Facts<'_>) {
    let blocks = facts.blocks.unwrap_or_default();
    let tokens = u64::from(blocks) * facts.block_size as u64;
    let enabled = if facts.blocks.is_some() { "True" } else { "False" };
    let concurrency = format!("{:?}", tokens as f64 / facts.model_len as f64);
    let (size, blocks, tokens) =
        (facts.block_size.to_string(), blocks.to_string(), tokens.to_string());
    let labels = [
        ("_block_size_resolved", "True"),
        ("block_size", &size),
        ("cache_dtype", "auto"),
        ("cache_hit_alignment_tokens", "None"),
        ("effective_attention_block_size", &size),
        ("enable_mamba_shared_prefix_checkpoint", "False"),
        ("enable_prefix_caching", enabled),
        ("engine", "0"),
        ("gpu_memory_utilization", "0.92"),
        ("hash_block_size", "None"),
        ("is_attention_free", "False"),
        ("kv_cache_dtype_skip_layers", "[]"),
        ("kv_cache_layout", "None"),
        ("kv_cache_max_concurrency", &concurrency),
        ("kv_cache_memory_bytes", "0"),
        ("kv_cache_size_tokens", &tokens),
        ("kv_offloading_backend", "native"),
        ("kv_offloading_size", "None"),
        ("kv_sharing_fast_prefill", "False"),
        ("mamba_block_size", "None"),
        ("mamba_cache_dtype", "auto"),
        ("mamba_cache_mode", "none"),
        ("mamba_page_size_padded", "None"),
        ("mamba_ssm_cache_dtype", "float32"),
        ("num_cpu_blocks", "None"),
        ("num_gpu_blocks", &blocks),
        ("num_gpu_blocks_override", &blocks),
        ("prefix_cache_retention_interval", "0"),
        ("prefix_caching_hash_algo", "cbor-fnv"),
        ("prefix_match_unit", "None"),
        ("replayssm_buffer_len", "16"),
        ("skip_page_size_padded", "None"),
        ("sliding_window", "None"),
        ("swa_bounded_replay", "True"),
        ("use_kda_recoverssm", "False"),
        ("use_replayssm", "False"),
        ("user_specified_block_size", "True"),
    ];
    page.gauge(
        "vllm:cache_config_info",
        "Information of the LLMEngine CacheConfig",
        [(Labels::new(labels), Value::Fixed(1.0))],
    );
}

fn tool_calls(page: &mut Page, facts: &Facts<'_>) {
    let mut samples = Vec::new();
    for mode in ["streaming", "non_streaming"] {
        for outcome in ["tool_call", "no_tool_call"] {
            for request_type in ["chat_completions", "responses", "other"] {
                let labels = Labels::new([
                    ("mode", mode),
                    ("model_name", facts.model),
                    ("outcome", outcome),
                    ("request_type", request_type),
                ]);
                samples.push((labels, ZERO));
            }
        }
    }
    page.counter(
        "vllm:tool_call_parser_invocations",
        "Total number of ToolParser invocations. Non-streaming increments once per choice; streaming \
         increments once per delta.",
        samples,
    );
}
