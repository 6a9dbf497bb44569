//! LoRA adapters of made-up weights, in the form in which PEFT writes them.

use std::fs;
use std::io;
use std::path::Path;

use serde_json::{Map, json};

const RANK: usize = 8;
const LAYERS: usize = 2;
const HIDDEN: usize = 128;
/// Projections and the width of what they put out.
const TARGETS: [(&str, usize); 2] = [("q_proj", 128), ("v_proj", 64)];

/// Writes an adapter of the model in `fixtures/vllm/model` to a directory.
///
/// # Errors
/// File errors.
pub fn write(dir: &Path, seed: u64) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    let config = json!({
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": super::MODEL,
        "r": RANK, "lora_alpha": 2 * RANK, "lora_dropout": 0.0, "bias": "none",
        "target_modules": TARGETS.map(|(name, _)| name),
    });
    fs::write(dir.join("adapter_config.json"), config.to_string())?;
    fs::write(dir.join("adapter_model.safetensors"), weights(seed))
}

/// A file of the safetensors format: the length of its header, the header, the numbers.
fn weights(seed: u64) -> Vec<u8> {
    let (mut header, mut data, mut state) = (Map::new(), Vec::new(), seed);
    for layer in 0..LAYERS {
        for (target, width) in TARGETS {
            for (side, shape) in [("A", [RANK, HIDDEN]), ("B", [width, RANK])] {
                let start = data.len();
                for _ in 0..shape[0] * shape[1] {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    // From -0.02 to 0.02.
                    let number = (state >> 40) as f32 / (1 << 24) as f32 * 0.04 - 0.02;
                    data.extend_from_slice(&number.to_le_bytes());
                }
                let name = format!(
                    "base_model.model.model.layers.{layer}.self_attn.{target}.lora_{side}.weight"
                );
                let offsets = [start, data.len()];
                header
                    .insert(name, json!({"dtype": "F32", "shape": shape, "data_offsets": offsets}));
            }
        }
    }
    let header = serde_json::Value::Object(header).to_string();
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file.extend_from_slice(&data);
    file
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn every_tensor_lies_where_the_header_says() {
        let file = weights(1);
        let length = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
        let header: Value = serde_json::from_slice(&file[8..8 + length]).unwrap();
        let tensors = header.as_object().unwrap();
        assert_eq!(tensors.len(), LAYERS * TARGETS.len() * 2);
        let mut bytes = 0;
        for tensor in tensors.values() {
            let numbers = |name: &str| -> Vec<usize> {
                tensor[name]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|n| n.as_u64().unwrap() as usize)
                    .collect()
            };
            let (shape, offsets) = (numbers("shape"), numbers("data_offsets"));
            assert_eq!(offsets[1] - offsets[0], shape[0] * shape[1] * 4);
            bytes += offsets[1] - offsets[0];
        }
        assert_eq!(file.len(), 8 + length + bytes);
    }
}
