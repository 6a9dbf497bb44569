//! `continue_final_message`: the prompt ends inside the last message.

use super::error::TemplateError;
use super::json::{Json, Object};
use super::methods::is_space;

/// Stands where the message ends; the blank shows whether the template trims.
const MARKER: &str = "CONTINUE_FINAL_MESSAGE_TAG ";
const FINAL: &str = "the content of the final message";

/// Appends the marker to the last text of the last message, and returns what that text was without
/// the white space around it. The template must read contents at all.
pub(super) fn mark(messages: &mut [Object], template: &str) -> Result<String, TemplateError> {
    if !template.contains("content") {
        return Err(TemplateError::field(FINAL, "a template that reads contents"));
    }
    let trimmed = |text: &str| text.trim_matches(is_space).to_owned();
    let content = messages.last_mut().and_then(|message| message.take("content"));
    let (marked, text) = match content {
        Some(Json::Text(text)) => (Json::Text(format!("{text}{MARKER}").into()), trimmed(&text)),
        Some(Json::List(mut parts)) => {
            let texts = parts.iter_mut().rev().filter_map(|part| match part {
                Json::Object(part) if part.get("text").is_some() => Some(part),
                _ => None,
            });
            let Some(part) = { texts }.next() else {
                return Err(TemplateError::field(FINAL, "a text to continue"));
            };
            let text = part.get("text").and_then(Json::as_text).map_or("", |text| text);
            let (text, trimmed) = (format!("{text}{MARKER}"), trimmed(text));
            part.set("text", Json::text(&text));
            (Json::List(parts), trimmed)
        }
        _ => return Err(TemplateError::field(FINAL, "a text to continue")),
    };
    if let Some(message) = messages.last_mut() {
        message.set("content", marked);
    }
    Ok(text)
}

/// Cuts the text where the marker stands. What is continued must stand somewhere in it.
pub(super) fn cut(text: &mut String, unfinished: &str) -> Result<(), TemplateError> {
    let place = text.rfind(MARKER.trim_end()).filter(|_| text.contains(unfinished));
    let Some(place) = place else {
        return Err(TemplateError::field(FINAL, "a text that the template prints"));
    };
    let preserved = text.get(place..).is_some_and(|rest| rest.starts_with(MARKER));
    text.truncate(place);
    if !preserved {
        text.truncate(text.trim_end_matches(is_space).len());
    }
    Ok(())
}
