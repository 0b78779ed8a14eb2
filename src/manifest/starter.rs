//! The repository that `rackwright init` writes.

macro_rules! files {
    ($($path:literal),* $(,)?) => { [$(($path, include_str!(concat!("starter/", $path)))),*] };
}

macro_rules! schemas {
    ($($name:literal),* $(,)?) => {
        [$((concat!(".rackwright/schemas/", $name), include_str!(concat!("../../schemas/", $name)))),*]
    };
}

/// Paths and contents of a small fleet repository that validates, with comments that teach, and with the schemas that its
/// `yaml-language-server` lines name, so that an editor needs no network.
pub fn starter() -> Vec<(&'static str, &'static str)> {
    let files = files![
        "README.md",
        "fleet.yaml",
        "images/debian-12.yaml",
        "machines/node-01.yaml",
        "networks/lan.yaml",
        "profiles/base.yaml",
        "profiles/node.yaml",
        "rollouts/node.yaml",
        "secrets/bmc.yaml",
        "templates/node.yaml",
    ];
    let schemas = schemas![
        "fleet-repo.schema.json",
        "fleet.schema.json",
        "image.schema.json",
        "machine.schema.json",
        "network.schema.json",
        "profile.schema.json",
        "rollout.schema.json",
        "secret.schema.json",
    ];
    files.into_iter().chain(schemas).collect()
}
