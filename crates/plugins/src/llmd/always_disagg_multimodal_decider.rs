//! `always-disagg-multimodal-decider`: requests with media are encoded on a pod of its own.

use std::sync::Arc;

use inlane_core::decision::PluginError;
use inlane_core::endpoint::EndpointIx;
use inlane_core::plugin::{Cycle, Decider, Roles};
use inlane_core::registry::{PluginType, TOKENIZED_PROMPT};

use crate::token_producer;

/// The type `always-disagg-multimodal-decider`. Parameters are ignored, as in the reference.
pub const TYPE: PluginType = PluginType::new("always-disagg-multimodal-decider", |build, _| {
    build.use_key(TOKENIZED_PROMPT, token_producer::TYPE.name);
    Ok(Roles::default().decider(Arc::new(Multimodal)))
});

/// Yes iff any prompt has an image, a video or a sound (llm-d-router
/// `always-disagg-multimodal-decider`).
#[derive(Debug)]
struct Multimodal;

impl Decider for Multimodal {
    fn decide(&self, cx: &Cycle<'_>, _decode: Option<EndpointIx>) -> Result<bool, PluginError> {
        Ok(!cx.request.media.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use inlane_core::request::{Media, Request};

    use crate::testing::World;

    #[test]
    fn one_media_item_is_enough() {
        let mut world = World::new(1);
        let built = world.build("always-disagg-multimodal-decider", "{whatever: 1}").unwrap();
        let decider = built.roles.decider.as_ref().unwrap();
        let text = Request::default();
        assert_eq!(decider.decide(&world.cycle(&text), Some(0)), Ok(false));
        let media = [Media { modality: "image", hash: "1", prompt: 1, offset: 0, length: 1 }];
        let image = Request { media: &media, ..Request::default() };
        assert_eq!(decider.decide(&world.cycle(&image), Some(0)), Ok(true));
        assert_eq!(decider.decide(&world.cycle(&image), None), Ok(true));
    }
}
