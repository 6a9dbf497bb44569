//! Output for a person: colour on a terminal, plain text elsewhere.

use std::io::IsTerminal;

/// Prints to standard output.
#[derive(Debug)]
pub(super) struct Printer {
    colour: bool,
}

impl Printer {
    pub(super) fn new() -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none();
        Self { colour: wanted && std::io::stdout().is_terminal() }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    pub(super) fn title(&self, text: &str) {
        println!("{}", self.paint("1", text));
    }

    pub(super) fn section(&self, text: &str) {
        println!("\n{}", self.paint("1;36", text));
    }

    pub(super) fn note(&self, text: &str) {
        println!("  {text}");
    }

    pub(super) fn success(&self, text: &str) {
        println!("  {} {text}", self.paint("32", "ok"));
    }

    pub(super) fn failure(&self, text: &str) {
        println!("  {} {text}", self.paint("31", "FAILED"));
    }

    /// Prints a table with left-aligned first column; rows that start with `*` are emphasised.
    pub(super) fn table(&self, rows: &[Vec<String>]) {
        let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns)
            .map(|c| rows.iter().filter_map(|r| r.get(c)).map(|t| t.chars().count()).max())
            .map(|width| width.unwrap_or(0))
            .collect();
        for (index, row) in rows.iter().enumerate() {
            let mut line = String::new();
            for (column, text) in row.iter().enumerate() {
                let pad = " ".repeat(widths[column] - text.chars().count());
                if column == 0 {
                    line.push_str(&format!("{text}{pad}"));
                } else {
                    line.push_str(&format!("  {pad}{text}"));
                }
            }
            let line = line.trim_end();
            let styled = match index {
                0 => self.paint("2", line),
                _ if row.first().is_some_and(|first| first.starts_with('*')) => {
                    self.paint("32", line)
                }
                _ => line.to_owned(),
            };
            println!("  {styled}");
        }
    }
}
