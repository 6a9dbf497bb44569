//! The topic of a message: `kv@POD@MODEL`.

/// Whose events these are, as the publisher says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Topic<'a> {
    /// The pod: an address, with or without a port. Of a topic that has another form, all of it.
    pub pod: &'a str,
    /// The model; empty if the topic has another form.
    pub model: &'a str,
}

impl<'a> Topic<'a> {
    /// Reads the first frame of a message. None if it is not UTF-8.
    ///
    /// A model's name may contain `@`: pod identifiers do not.
    pub fn parse(topic: &'a [u8]) -> Option<Self> {
        let topic = str::from_utf8(topic).ok()?;
        let mut parts = topic.splitn(3, '@').skip(1);
        Some(match (parts.next(), parts.next()) {
            (Some(pod), Some(model)) => Self { pod, model },
            _ => Self { pod: topic, model: "" },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pod_and_model_are_the_second_and_third_part() {
        let topic = Topic { pod: "10.0.0.1:8000", model: "meta/llama" };
        assert_eq!(Topic::parse(b"kv@10.0.0.1:8000@meta/llama"), Some(topic));
    }

    #[test]
    fn a_model_may_contain_the_separator() {
        assert_eq!(Topic::parse(b"kv@pod@a@b"), Some(Topic { pod: "pod", model: "a@b" }));
    }

    #[test]
    fn a_topic_of_another_form_is_a_pod_of_no_model() {
        assert_eq!(Topic::parse(b"kv@pod"), Some(Topic { pod: "kv@pod", model: "" }));
        assert_eq!(Topic::parse(b""), Some(Topic::default()));
        assert_eq!(Topic::parse(&[0xff]), None);
    }
}
