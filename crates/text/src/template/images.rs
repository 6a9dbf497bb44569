//! Images among the parts of messages: taken out, and placed as the engine places them.

use std::sync::Arc;

use super::error::TemplateError;
use super::json::{Json, Object};

/// An image of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImagePart {
    /// Where it is, or its data.
    pub url: Arc<str>,
    /// The client's own name for it, which the engine then takes in place of a digest.
    pub uuid: Option<Arc<str>>,
}

/// How a model has its images among the text of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageStyle<'a> {
    /// Stands before the text of a message, for templates that are given one text. Others place
    /// images themselves. `None`: the model has images with such templates only.
    pub placeholder: Option<&'a str>,
}

/// The images of a request, collected message by message.
#[derive(Debug, Default)]
pub(super) struct Collected<'a> {
    style: Option<ImageStyle<'a>>,
    images: Vec<ImagePart>,
}

impl ImagePart {
    /// Reads the part of this type. `None` for other media, and for forms that the engine refuses or
    /// reads in its own way.
    pub(super) fn of(kind: &str, mut part: Object) -> Option<Self> {
        let uuid = match part.take("uuid") {
            None | Some(Json::Null) => None,
            Some(Json::Text(uuid)) => Some(uuid),
            Some(Json::Int(uuid)) => Some(uuid.to_string().into()),
            Some(_) => return None,
        };
        let url = match (kind, part.take("image_url")?) {
            ("image_url", Json::Object(mut url)) => url.take("url")?,
            ("input_image", url) if part.get("detail").is_some() => url,
            _ => return None,
        };
        match url {
            Json::Text(url) if !url.is_empty() => Some(Self { url, uuid }),
            _ => None,
        }
    }
}

impl<'a> Collected<'a> {
    pub(super) fn new(style: Option<ImageStyle<'a>>) -> Self {
        Self { style, images: Vec::new() }
    }

    /// Whether there may be images at all.
    pub(super) fn are_taken(&self) -> bool {
        self.style.is_some()
    }

    pub(super) fn push(&mut self, image: ImagePart) {
        self.images.push(image);
    }

    /// Takes the images of a message that is one text, and puts placeholders before it: as many as
    /// the text itself does not have.
    pub(super) fn before(
        &mut self,
        text: Json,
        images: impl Iterator<Item = ImagePart>,
        field: &dyn Fn() -> String,
    ) -> Result<Json, TemplateError> {
        let known = self.images.len();
        self.images.extend(images);
        let count = self.images.len() - known;
        let (Json::Text(text), true) = (&text, count > 0) else { return Ok(text) };
        let placeholder = self.style.and_then(|style| style.placeholder);
        let Some(placeholder) = placeholder else {
            return Err(TemplateError::Media { field: field(), kind: "image".to_owned() });
        };
        let Some(missing) = count.checked_sub(text.matches(placeholder).count()) else {
            return Err(TemplateError::field(field(), "no more placeholders than images"));
        };
        let mut lines = vec![placeholder; missing];
        lines.extend(Some(&**text).filter(|text| !text.is_empty()));
        Ok(Json::Text(lines.join("\n").into()))
    }

    pub(super) fn taken(self) -> Vec<ImagePart> {
        self.images
    }
}

#[cfg(test)]
mod tests {
    use super::super::{ChatApi, ChatTemplate, Rendered};
    use super::*;

    const PARTS: &str = "{% for m in messages %}{% for p in m.content %}{{ p.type }}={{ p.text }};{% endfor %}{% endfor %}";
    const TEXT: &str = "{% for m in messages %}{{ m.role }}:{{ m.content }};{% endfor %}";
    const STYLE: Option<ImageStyle<'_>> = Some(ImageStyle { placeholder: Some("<i>") });
    const IMAGE: &str = r#"{"type":"image_url","image_url":{"url":"data:x"}}"#;

    fn render(
        template: &str,
        messages: &str,
        more: &str,
        style: Option<ImageStyle<'_>>,
    ) -> Result<Rendered, TemplateError> {
        let template = ChatTemplate::from_parts(template, b"{}").expect("a template");
        let body = format!(r#"{{"messages":{messages}{more}}}"#);
        template.render_with(ChatApi::Chat, body.as_bytes(), 0, style)
    }

    fn user(parts: &str) -> String {
        format!(r#"[{{"role":"user","content":[{parts}]}}]"#)
    }

    fn text(template: &str, parts: &str) -> String {
        render(template, &user(parts), "", STYLE).expect("a prompt").text
    }

    #[test]
    fn templates_of_parts_place_images_themselves() {
        let parts = format!(r#"{{"type":"text","text":"a"}},{IMAGE},"b",{IMAGE}"#);
        assert_eq!(text(PARTS, &parts), "text=a;image=;text=b;image=;");
        let rendered = render(PARTS, &user(&parts), "", STYLE).expect("a prompt");
        assert_eq!(rendered.images.len(), 2);
        assert_eq!(&*rendered.images[0].url, "data:x");
    }

    #[test]
    fn before_one_text_stand_the_placeholders_that_it_lacks() {
        let parts = format!(r#"{{"type":"text","text":"a"}},{IMAGE},"b",{IMAGE}"#);
        assert_eq!(text(TEXT, &parts), "user:<i>\n<i>\na\nb;");
        assert_eq!(text(TEXT, IMAGE), "user:<i>;");
        let own = format!(r#""see <i> and",{IMAGE},{IMAGE}"#);
        assert_eq!(text(TEXT, &own), "user:<i>\nsee <i> and;");
        let many = user(&format!(r#""<i> <i>",{IMAGE}"#));
        assert!(matches!(render(TEXT, &many, "", STYLE), Err(TemplateError::Field { .. })));
        let none = Some(ImageStyle { placeholder: None });
        let refused = render(TEXT, &user(IMAGE), "", none);
        assert!(matches!(refused, Err(TemplateError::Media { .. })));
    }

    #[test]
    fn tool_messages_with_images_keep_their_parts() {
        let message = |parts: &str| format!(r#"[{{"role":"tool","content":[{parts}]}}]"#);
        let shown = message(&format!(r#"{{"type":"text","text":"a"}},{IMAGE}"#));
        let rendered = render(PARTS, &shown, "", STYLE).expect("a prompt");
        assert_eq!(rendered.text, "text=a;image=;");
    }

    #[test]
    fn a_uuid_names_an_image() {
        let uuid = |uuid: &str| {
            let part =
                format!(r#"{{"type":"image_url","image_url":{{"url":"data:x"}},"uuid":{uuid}}}"#);
            render(PARTS, &user(&part), "", STYLE).map(|mut rendered| {
                rendered.images.pop().expect("an image").uuid.map(|uuid| uuid.to_string())
            })
        };
        assert_eq!(uuid(r#""mine""#).expect("a prompt").as_deref(), Some("mine"));
        assert_eq!(uuid("5").expect("a prompt").as_deref(), Some("5"));
        assert_eq!(uuid("null").expect("a prompt"), None);
        assert!(uuid("[1]").is_err());
    }

    #[test]
    fn what_the_engine_reads_otherwise_stays_media() {
        for part in [
            r#"{"type":"image_url","image_url":"data:x"}"#,
            r#"{"type":"image_url","image_url":{"url":null},"uuid":"a"}"#,
            r#"{"type":"image_url","image_url":null,"uuid":"a"}"#,
            r#"{"type":"input_image","image_url":"data:x"}"#,
            r#"{"type":"image_embeds","image_embeds":"x"}"#,
            r#"{"type":"video_url","video_url":{"url":"data:x"}}"#,
            r#"{"type":"input_audio","input_audio":{"data":"x","format":"wav"}}"#,
        ] {
            let error = render(PARTS, &user(part), "", STYLE).expect_err(part);
            assert!(matches!(error, TemplateError::Media { .. }), "{part}: {error}");
        }
        assert!(render(PARTS, &user(IMAGE), "", None).is_err());
        let options = r#","mm_processor_kwargs":{"max_pixels":1}"#;
        assert!(render(PARTS, &user(IMAGE), options, STYLE).is_err());
        let empty = r#","mm_processor_kwargs":{},"media_io_kwargs":null"#;
        assert!(render(PARTS, &user(IMAGE), empty, STYLE).is_ok());
        let input = r#"{"type":"input_image","image_url":"data:x","detail":"auto"}"#;
        assert!(render(PARTS, &user(input), "", STYLE).is_ok());
    }
}
