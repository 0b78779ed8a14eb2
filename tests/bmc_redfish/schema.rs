//! The published schema of what `observe --json` prints.

use std::path::Path;

use rackwright::model::{Observation, Unknown};

#[test]
fn the_published_schema_is_that_of_the_types() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas/observation.schema.json");
    let fresh = format!("{}\n", serde_json::to_string_pretty(&rackwright::bmc::observation_schema()).unwrap());
    if std::env::var_os("UPDATE_SCHEMAS").is_some() {
        std::fs::write(&path, &fresh).unwrap();
    }
    let published = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(published == fresh, "{} is stale; run the tests with UPDATE_SCHEMAS=1 and commit it", path.display());
}

#[test]
fn an_observation_is_valid_by_the_schema() {
    let schema = jsonschema::validator_for(&rackwright::bmc::observation_schema()).unwrap();
    let blank = Observation::blank("2026-11-01T00:00:00Z".parse().unwrap(), "https://10.0.0.1", &Unknown::Busy("503".into()));
    let value = serde_json::to_value(blank).unwrap();
    let errors: Vec<String> = schema.iter_errors(&value).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{errors:?}");
    assert!(!schema.is_valid(&serde_json::json!({"power": "On"})));
}
