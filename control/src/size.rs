//! Sizes on the command line: `64MiB`, `2GB`, `1048576`.

/// Reads a size in bytes: a whole number with `B`, `KB`, `MB`, `GB`, `TB` (decimal), `KiB`, `MiB`,
/// `GiB`, `TiB` (binary) or nothing.
pub(crate) fn parse(text: &str) -> Result<u64, String> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let factor: u64 = match unit {
        "" | "B" => 1,
        "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return Err("expected a size such as 64MiB".into()),
    };
    let number: Result<u64, _> = number.parse();
    let size = number.ok().and_then(|number| number.checked_mul(factor));
    size.ok_or_else(|| "expected a size such as 64MiB".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_decimal_or_binary() {
        assert_eq!(parse("64MiB"), Ok(64 << 20));
        assert_eq!(parse("2GB"), Ok(2_000_000_000));
        assert_eq!(parse("0"), Ok(0));
        for text in ["", "MiB", "1.5MiB", "-1", "1mib", "99999999999TiB"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
