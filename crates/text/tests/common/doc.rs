//! A JSON document with its keys in the order of the body, equal ones too.

/// A value.
#[derive(Debug)]
pub enum Doc {
    List(Vec<Doc>),
    Null,
    /// A number, and its value if it is written as a whole one.
    Number(Option<u64>),
    Object(Vec<(String, Doc)>),
    /// True or false.
    Other,
    Text(String),
}

impl Doc {
    /// Reads a body that `serde_json` has accepted.
    pub fn read(body: &[u8]) -> Self {
        Reader(body).value()
    }

    /// The members of an object, none of anything else.
    pub fn members(&self) -> &[(String, Doc)] {
        match self {
            Self::Object(members) => members,
            _ => &[],
        }
    }

    /// The last member of that name.
    pub fn last(&self, name: &str) -> Option<&Doc> {
        self.members().iter().rev().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    /// The text of a string, none of anything else.
    pub fn text(&self) -> &str {
        match self {
            Self::Text(text) => text,
            _ => "",
        }
    }

    /// Visits the keys and strings below and in this value.
    pub fn flat(&self, visit: &mut dyn FnMut(&str)) {
        match self {
            Self::Text(text) => visit(text),
            Self::List(items) => items.iter().for_each(|item| item.flat(visit)),
            Self::Object(members) => {
                for (key, value) in members {
                    visit(key);
                    value.flat(visit);
                }
            }
            Self::Null | Self::Number(_) | Self::Other => {}
        }
    }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    /// The next byte that is no white space.
    fn peek(&mut self) -> u8 {
        self.0 = self.0.trim_ascii_start();
        self.0[0]
    }

    fn take(&mut self) -> u8 {
        let byte = self.peek();
        self.0 = &self.0[1..];
        byte
    }

    fn value(&mut self) -> Doc {
        match self.peek() {
            b'{' => {
                let mut members = Vec::new();
                self.each(b'}', |reader| {
                    let key = reader.string();
                    reader.take();
                    members.push((key, reader.value()));
                });
                Doc::Object(members)
            }
            b'[' => {
                let mut items = Vec::new();
                self.each(b']', |reader| items.push(reader.value()));
                Doc::List(items)
            }
            b'"' => Doc::Text(self.string()),
            first => {
                let end =
                    |byte: &u8| matches!(byte, b',' | b']' | b'}') || byte.is_ascii_whitespace();
                let len = self.0.iter().position(end).unwrap_or(self.0.len());
                let (value, rest) = self.0.split_at(len);
                self.0 = rest;
                match first {
                    b'n' => Doc::Null,
                    b't' | b'f' => Doc::Other,
                    _ => Doc::Number(serde_json::from_slice(value).ok()),
                }
            }
        }
    }

    /// Reads the members of the container that begins here.
    fn each(&mut self, end: u8, mut member: impl FnMut(&mut Self)) {
        self.take();
        while self.peek() != end {
            member(self);
            if self.peek() == b',' {
                self.take();
            }
        }
        self.take();
    }

    fn string(&mut self) -> String {
        self.peek();
        let mut len = 1;
        while self.0[len] != b'"' {
            len += if self.0[len] == b'\\' { 2 } else { 1 };
        }
        let (text, rest) = self.0.split_at(len + 1);
        self.0 = rest;
        serde_json::from_slice(text).unwrap()
    }
}
