//! Changes of the input files while the control plane runs.
#![allow(clippy::unwrap_used, reason = "a test may fail this way")]

mod common;

use std::os::unix::fs::symlink;

use common::{Control, Scene, eventually};

const HEAD: &str = "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\n";

fn entry(name: &str) -> String {
    format!("- {{name: {name}, address: \"127.0.0.1\", port: \"1\"}}\n")
}

#[test]
fn the_endpoints_file_is_followed() {
    let scene = Scene::new();
    scene.endpoints(&[entry("a")]);
    let control = scene.start(&[]);
    let mut reader = scene.reader();
    reader.wait_for_names(&["a"]);
    let slot = reader.endpoint("a").unwrap().slot;

    scene.write("endpoints.yaml", &format!("endpoints:\n{}{}", entry("a"), entry("b")));
    reader.wait_for_names(&["a", "b"]);
    assert_eq!(reader.endpoint("a").unwrap().slot, slot, "who stays keeps the slot");

    scene.endpoints(&[entry("b"), entry("c")]);
    reader.wait_for_names(&["b", "c"]);

    let before = reader.topology().unwrap().0;
    scene.write("endpoints.yaml", "endpoints: [");
    let refused = "inlane_control_refused{input=\"endpoints\"}";
    eventually("refusal", || (control.metric(refused)? == 1.0).then_some(()));
    assert!(control.json("/readyz")["endpoints"]["error"].is_string());
    std::fs::remove_file(scene.path("endpoints.yaml")).unwrap();
    let refusals = "inlane_control_refusals_total{input=\"endpoints\"}";
    eventually("second refusal", || (control.metric(refusals)? == 2.0).then_some(()));
    assert_eq!(reader.names(), ["b", "c"]);
    assert_eq!(reader.topology().unwrap().0, before, "nothing was published");

    let bad = "- {name: x, address: \"127.0.0.1\", port: \"none\"}\n".to_owned();
    scene.endpoints(&[entry("c"), bad, entry("d")]);
    reader.wait_for_names(&["c", "d"]);
    assert_eq!(control.metric(refused), Some(1.0), "a part is not in force");

    scene.endpoints(&[]);
    reader.wait_for_names(&[]);
    eventually("no complaint", || (control.metric(refused)? == 0.0).then_some(()));
}

#[test]
fn a_config_map_volume_is_followed() {
    let scene = Scene::new();
    for (version, names) in [("v1", ["a", "b"]), ("v2", ["b", "c"])] {
        std::fs::create_dir(scene.path(version)).unwrap();
        let text = format!("endpoints:\n{}{}", entry(names[0]), entry(names[1]));
        scene.write(&format!("{version}/endpoints.yaml"), &text);
    }
    symlink("v1", scene.path("..data")).unwrap();
    symlink("..data/endpoints.yaml", scene.path("endpoints.yaml")).unwrap();
    let _control = scene.start(&[]);
    let mut reader = scene.reader();
    reader.wait_for_names(&["a", "b"]);
    symlink("v2", scene.path("..data_tmp")).unwrap();
    std::fs::rename(scene.path("..data_tmp"), scene.path("..data")).unwrap();
    reader.wait_for_names(&["b", "c"]);
}

#[test]
fn a_bad_configuration_is_refused_and_the_old_one_stays() {
    let scene = Scene::new();
    scene.endpoints(&[entry("a")]);
    let good = format!("{HEAD}plugins: [{{type: queue-scorer}}]\n");
    let config = scene.write("config.yaml", &good);
    let control = scene.start(&["--config-file", config.to_str().unwrap()]);
    let mut reader = scene.reader();
    let (first, document) = eventually("a configuration", || reader.config());
    assert_eq!(document.text, good);
    assert_eq!(document.source, config.to_str().unwrap());

    scene.write("config.yaml", &format!("{HEAD}plugins: [{{type: queue-scorerr}}]\n"));
    let refused = "inlane_control_refused{input=\"config\"}";
    eventually("refusal", || (control.metric(refused)? == 1.0).then_some(()));
    assert_eq!(reader.config().unwrap(), (first, document));
    let (status, detail) = control.get("/readyz");
    assert_eq!(status, 200, "the old one serves");
    assert!(detail.contains("queue-scorerr"), "{detail}");
    let line =
        control.logged("the configuration is refused, the one before stays in force").unwrap();
    assert_eq!(line["level"], "error");
    assert!(line["error"].as_str().unwrap().contains("config.yaml:3"), "{line}");

    let better = format!("{HEAD}plugins: [{{type: random-picker}}]\n");
    scene.write("config.yaml", &better);
    eventually("the next one", || {
        reader.config().filter(|(generation, c)| *generation > first && c.text == better)
    });
    eventually("no complaint", || (control.metric(refused)? == 0.0).then_some(()));
}

#[test]
fn the_configuration_names_the_endpoints_file() {
    let scene = Scene::new();
    let file = |name: &str, member: &str| {
        let path = scene.write(name, &format!("endpoints:\n{}", entry(member)));
        path.to_str().unwrap().to_owned()
    };
    let config = |path: &str, watch: bool| {
        let text = format!(
            "{HEAD}plugins: [{{type: file-discovery, parameters: {{path: {path}, watchFile: {watch}}}}}]\n\
             dataLayer: {{discovery: {{pluginRef: file-discovery}}}}\n"
        );
        scene.write("config.yaml", &text)
    };
    let first = file("first.yaml", "a");
    let path = config(&first, false);
    let control = Control::start(&scene.segment(), &["--config-file", path.to_str().unwrap()]);
    let mut reader = scene.reader();
    reader.wait_for_names(&["a"]);

    file("first.yaml", "ignored");
    config(&file("second.yaml", "b"), true);
    reader.wait_for_names(&["b"]);
    file("second.yaml", "c");
    reader.wait_for_names(&["c"]);

    let generation = reader.config().unwrap().0;
    config("/nowhere.yaml", true);
    let refused = "inlane_control_refused{input=\"config\"}";
    eventually("refusal", || (control.metric(refused)? == 1.0).then_some(()));
    assert_eq!((reader.config().unwrap().0, reader.names()), (generation, vec!["c".to_owned()]));
    file("second.yaml", "d");
    reader.wait_for_names(&["d"]);
}

#[test]
fn without_a_file_the_built_in_configuration_is_published() {
    let scene = Scene::new();
    scene.endpoints(&[]);
    let _control = scene.start(&[]);
    let mut reader = scene.reader();
    let (_, document) = eventually("a configuration", || reader.config());
    assert_eq!((document.source.as_str(), document.text.as_str()), ("", ""));
}

#[test]
fn a_bad_configuration_at_the_first_start_is_fatal() {
    let scene = Scene::new();
    scene.endpoints(&[]);
    let text = format!("{HEAD}plugins: [{{type: nonsense}}]");
    let mut control = scene.start(&["--config-text", &text]);
    assert_eq!(control.wait().code(), Some(1));
    assert!(control.log_text().contains("nonsense"));
}
