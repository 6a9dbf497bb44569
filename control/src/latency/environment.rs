//! Settings by the environment variables of the reference's training server.

use inlane_latency::{Objective, Options};

/// More samples than a gate ever holds: there are no forests.
const NO_FORESTS: usize = 1_000_000;

/// Variables that point to servers or tune them, and what is not a choice here.
const MEANINGLESS: [&str; 14] = [
    "LATENCY_COALESCE_WINDOW_MS",
    "LATENCY_ENABLE_TOKEN_IN_FLIGHT_FEATURES",
    "LATENCY_ENSEMBLE_MODE",
    "LATENCY_FLUSH_INTERVAL_SEC",
    "LATENCY_HTTP_TIMEOUT_SEC",
    "LATENCY_MAX_BULK_SIZE",
    "LATENCY_MAX_COALESCED_ROWS",
    "LATENCY_MAX_CONCURRENT_DISPATCHES",
    "LATENCY_MAX_SAMPLE_SIZE",
    "LATENCY_METRICS_INTERVAL_SEC",
    "LATENCY_SAMPLE_WEIGHTING_FOR_PREFIX_CACHE",
    "LATENCY_TPOT_ZERO_TOKEN_COUNT",
    "LATENCY_USE_NATIVE_XGBOOST",
    "PREDICTION_SERVER_URL",
];

/// What the environment says.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Read {
    pub(crate) options: Options,
    /// What a person should know.
    pub(crate) notes: Vec<String>,
}

/// Reads the trainer's settings.
///
/// # Errors
/// A variable whose value is not one of those named, or outside its range.
pub(crate) fn options(
    variables: impl IntoIterator<Item = (String, String)>,
) -> Result<Read, String> {
    let mut read = Read { options: Options::default(), notes: Vec::new() };
    for (name, value) in variables {
        if value.is_empty() {
            continue;
        }
        let refuse = |expected: &str| format!("{name} is \"{value}\", expected {expected}");
        let options = &mut read.options;
        match name.as_str() {
            "LATENCY_QUANTILE_ALPHA" => {
                options.quantile = value.parse().map_err(|_| refuse("a number from 0.5 to 0.999"))?;
                options.validate().map_err(|_| refuse("a number from 0.5 to 0.999"))?;
            }
            "LATENCY_OBJECTIVE_TYPE" => {
                options.objective = match value.as_str() {
                    "mean" => Objective::Mean,
                    "quantile" => Objective::Quantile,
                    _ => return Err(refuse("mean or quantile")),
                };
            }
            "LATENCY_MODEL_TYPE" => match value.as_str() {
                "bayesian_ridge" => options.min_forest_samples = NO_FORESTS,
                "xgboost" | "lightgbm" => {}
                _ => return Err(refuse("xgboost, lightgbm or bayesian_ridge")),
            },
            "LATENCY_MAX_TRAINING_DATA_SIZE_PER_BUCKET" => {
                options.cell_capacity = value.parse().map_err(|_| refuse("1 to 100000"))?;
                options.validate().map_err(|_| refuse("1 to 100000"))?;
            }
            "TRAINING_SERVER_URL" => read.notes.push(
                "TRAINING_SERVER_URL is not used: models are trained in this process, no sidecar is \
                 needed"
                    .into(),
            ),
            other if MEANINGLESS.contains(&other) => {
                read.notes.push(format!("{other} has no effect here, see docs/compatibility.md"));
            }
            _ => {}
        }
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Read, String> {
        options(variables.iter().map(|(name, value)| ((*name).into(), (*value).into())))
    }

    #[test]
    fn nothing_means_the_defaults() {
        let none = Read { options: Options::default(), notes: Vec::new() };
        assert_eq!(read(&[("PATH", "/bin"), ("LATENCY_QUANTILE_ALPHA", "")]), Ok(none));
    }

    #[test]
    fn variables_of_the_training_server_are_read() {
        let read = read(&[
            ("LATENCY_QUANTILE_ALPHA", "0.95"),
            ("LATENCY_OBJECTIVE_TYPE", "quantile"),
            ("LATENCY_MODEL_TYPE", "bayesian_ridge"),
            ("LATENCY_MAX_TRAINING_DATA_SIZE_PER_BUCKET", "50"),
            ("TRAINING_SERVER_URL", "http://localhost:8000"),
            ("LATENCY_HTTP_TIMEOUT_SEC", "10"),
        ])
        .unwrap();
        assert_eq!(read.options.quantile, 0.95);
        assert_eq!(read.options.objective, Objective::Quantile);
        assert_eq!(read.options.min_forest_samples, NO_FORESTS);
        assert_eq!(read.options.cell_capacity, 50);
        assert_eq!(read.notes.len(), 2);
        assert_eq!(read.options.validate(), Ok(()));
    }

    #[test]
    fn bad_values_are_refused_by_name() {
        for (name, value) in [
            ("LATENCY_QUANTILE_ALPHA", "1.5"),
            ("LATENCY_QUANTILE_ALPHA", "high"),
            ("LATENCY_OBJECTIVE_TYPE", "median"),
            ("LATENCY_MODEL_TYPE", "oracle"),
            ("LATENCY_MAX_TRAINING_DATA_SIZE_PER_BUCKET", "0"),
        ] {
            let error = read(&[(name, value)]).unwrap_err();
            assert!(error.starts_with(&format!("{name} is \"{value}\", expected ")), "{error}");
        }
    }
}
