//! What the commands print with `--json` is what `ana schema` says, on real outputs.

use ana_tests::{
    Ground,
    machine::{path_str, which},
};
use serde_json::Value;

fn printed(ground: &Ground, words: &[&str]) -> String {
    let output = ground.ana(words).output().expect("ana can be started");
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// The value fits the schema; and a value that lacks any of its members, or has one more, does not.
#[track_caller]
fn fits(ground: &Ground, name: &str, value: &Value) {
    let schema = json(&printed(ground, &["schema", name]));
    let validator = jsonschema::validator_for(&schema).unwrap_or_else(|error| panic!("{name}: {error}"));
    let errors: Vec<String> = validator.iter_errors(value).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{name}: {errors:#?}\n{value:#}");
    let one = value.as_array().and_then(|list| list.first()).unwrap_or(value);
    let first = one.as_object().and_then(|members| members.keys().find(|key| !one[*key].is_null()));
    let first = first.unwrap_or_else(|| panic!("{name} is empty: {value}")).clone();
    let mut broken = value.clone();
    let place = if value.is_array() { "/0" } else { "" };
    broken.pointer_mut(place).expect("just seen")[&first] = Value::from(vec![Value::Null]);
    assert!(!validator.is_valid(&broken), "{name}: anything goes for {first:?}");
}

#[test]
fn every_schema_describes_its_command() {
    let ground = Ground::new("schemas");
    let mut session = ground.start(&[path_str(&ground.deploy()), "production"]);
    let question = ground.question_of(&mut session);
    fits(&ground, "operation", &question.operation);
    fits(&ground, "pending", &json(&printed(&ground, &["pending", "--json"])));
    fits(&ground, "sessions", &json(&printed(&ground, &["sessions", "--json"])));
    ground.approve(&question.id);
    session.finish().assert_code(0);

    let exported = printed(&ground, &["audit", "export"]);
    let records: Vec<Value> = exported.lines().map(json).collect();
    assert!(records.iter().any(|record| record["assertion"].is_object()), "{exported}");
    for record in &records {
        fits(&ground, "record", record);
    }
    fits(&ground, "passkeys", &json(&printed(&ground, &["passkey", "list", "--json"])));
    fits(&ground, "audit-list", &json(&printed(&ground, &["audit", "list", "--json"])));
    fits(&ground, "audit-show", &json(&printed(&ground, &["audit", "show", "--json", &question.id])));
    fits(&ground, "audit-verify", &json(&printed(&ground, &["audit", "verify", "--json"])));
    fits(&ground, "doctor", &json(&printed(&ground, &["doctor", "--json"])));
    let deploy = ground.deploy();
    let explain = ["policy", "explain", "--json", "exec", "--", path_str(&deploy), "x"];
    fits(&ground, "policy-explain", &json(&printed(&ground, &explain)));
    let explain =
        ["policy", "explain", "--json", "connect", "--exe", path_str(&deploy), "api.example.com:443"];
    fits(&ground, "policy-explain", &json(&printed(&ground, &explain)));
    fits(&ground, "policy-check", &json(&printed(&ground, &["policy", "check", "--json"])));
    let wrong = ground.write("wrong.toml", 0o644, "version = 2\n");
    fits(&ground, "policy-check", &json(&printed(&ground, &["policy", "check", "--json", path_str(&wrong)])));
    let names = printed(&ground, &["schema"]);
    assert_eq!(names.lines().count(), 11, "another schema, another line above:\n{names}");
}

/// By whom and of which kind: what a person approved, among everything else.
#[test]
fn the_audit_list_filters() {
    let ground = Ground::new("filters");
    let session = ground.start(&[path_str(&ground.deploy()), "one"]);
    let question = ground.question();
    ground.approve(&question.id);
    session.finish().assert_code(0);
    let list = |words: &[&str]| {
        let all = [&["audit", "list", "--json"], words].concat();
        json(&printed(&ground, &all)).as_array().expect("an array").clone()
    };
    let decisions = list(&["--event", "decision"]);
    assert_eq!(decisions.len(), 1, "{decisions:#?}");
    let approver = decisions[0]["approver"].as_str().expect("a person approved").to_owned();
    assert_eq!(list(&["--approver", &approver]).len(), 1);
    assert!(list(&["--approver", "nobody"]).is_empty());
    let newest = list(&["--limit", "2"]);
    assert_eq!(newest.len(), 2);
    assert_eq!(newest[1]["event"], "session-end");
    let refused = ground.ana(&["audit", "list", "--event", "nonsense"]).output().expect("ana");
    assert!(!refused.status.success());
}

/// Every fact that decides what is protected has its line, and every trouble its way out.
#[test]
fn doctor_says_what_is_protected() {
    let ground = Ground::new("doctor");
    let doctor = || {
        let output = ground.ana(&["doctor", "--json"]).output().expect("ana can be started");
        (output.status.success(), json(&String::from_utf8(output.stdout).expect("UTF-8")))
    };
    let (ok, diagnosis) = doctor();
    assert!(ok, "the tests run here: {diagnosis:#}");
    let checks = diagnosis["checks"].as_array().expect("checks").clone();
    let status = |name: &str| {
        let found = checks.iter().find(|check| check["name"] == name);
        found.unwrap_or_else(|| panic!("no {name}: {checks:#?}"))["status"]
            .as_str()
            .expect("a word")
            .to_owned()
    };
    for name in ["fanotify", "ebpf-programs", "cgroup2", "btf", "state", "policy", "listed-files"] {
        assert_eq!(status(name), "ok", "{name}: {checks:#?}");
    }
    for name in ["tier", "installation", "sudo", "journal", "yama", "lsm", "landlock", "passkeys", "path"] {
        status(name);
    }
    for check in &checks {
        assert_eq!(check["status"] == "ok", check["way_out"].is_null(), "{check}");
        assert!(!check["means"].as_str().expect("text").is_empty(), "{check}");
    }
    // A name that PATH finds elsewhere, and a rule without a file.
    if which("git").is_some() {
        ground.policy(&(ground.asking() + "[[exec]]\nname = \"g\"\nfile = [\"/nowhere/git\"]\n"));
        let (ok, diagnosis) = doctor();
        assert!(ok);
        let found = diagnosis["checks"].as_array().expect("checks").clone();
        for (name, word) in [("path", "PATH finds"), ("listed-files", "no file of: g")] {
            let check = found.iter().find(|check| check["name"] == name).expect("just seen");
            assert_eq!(check["status"], "degraded", "{check}");
            assert!(check["found"].as_str().expect("text").contains(word), "{check}");
        }
    }
    // Without a policy nothing can run.
    std::fs::remove_file(ground.state().join("policy.toml")).expect("the policy");
    assert!(!doctor().0);
}
