//! The configurations that are compared.

/// A configuration with a name.
pub struct Policy {
    /// As the table calls it.
    pub name: &'static str,
    /// Plugins with parameters and, for scorers, their weights: `type` or `{type: .., ..}`.
    plugins: &'static [(&'static str, Option<u32>)],
}

const ACTIVE: (&str, Option<u32>) = ("type: active-request-scorer", Some(1));
const BEST: (&str, Option<u32>) = ("type: max-score-picker", None);

/// Baselines first, then what this project adds.
pub const POLICIES: &[Policy] = &[
    Policy { name: "random", plugins: &[("type: random-picker", None)] },
    Policy {
        name: "queue + kv",
        plugins: &[
            ("type: queue-scorer", Some(1)),
            ("type: kv-cache-utilization-scorer", Some(1)),
            BEST,
        ],
    },
    Policy {
        name: "queue 2 + kv 2 + prefix 3",
        plugins: &[
            ("type: queue-scorer", Some(2)),
            ("type: kv-cache-utilization-scorer", Some(2)),
            ("type: prefix-cache-scorer", Some(3)),
            BEST,
        ],
    },
    Policy { name: "active-request", plugins: &[ACTIVE, BEST] },
    Policy {
        name: "prefix 1 + active-request 1",
        plugins: &[("type: prefix-cache-scorer", Some(1)), ACTIVE, BEST],
    },
    Policy { name: "lmetric", plugins: &[("type: lmetric-scorer", Some(1)), BEST] },
    Policy { name: "prefix-load", plugins: &[("type: prefix-load-scorer", Some(1)), BEST] },
    Policy { name: "bounded-load-hash", plugins: &[("type: bounded-load-hash-picker", None)] },
    Policy {
        name: "power of 2, active-request",
        plugins: &[("{type: power-of-d, parameters: {d: 2}}", None), ACTIVE, BEST],
    },
    Policy {
        name: "power of 16, lmetric",
        plugins: &[
            ("{type: power-of-d, parameters: {d: 16}}", None),
            ("type: lmetric-scorer", Some(1)),
            BEST,
        ],
    },
];

impl Policy {
    /// The configuration.
    pub(super) fn configuration(&self) -> String {
        let plugins: String = self.plugins.iter().map(|(text, _)| format!("- {text}\n")).collect();
        let references: String = self
            .plugins
            .iter()
            .map(|(text, weight)| {
                let name = text.trim_start_matches('{').trim_start_matches("type: ");
                let name = name.split(',').next().unwrap_or(name);
                let weight = weight.map(|w| format!(", weight: {w}")).unwrap_or_default();
                format!("  - {{pluginRef: {name}{weight}}}\n")
            })
            .collect();
        format!(
            "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nplugins:\n{plugins}\
             schedulingProfiles:\n- name: default\n  plugins:\n{references}"
        )
    }
}
