use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use clap::Parser;

use super::{Args, answer};

#[derive(Parser)]
struct Ana {
    #[command(flatten)]
    args: Args,
}

/// Runs `ana policy WORDS…`; gives stdout, stderr and whether the exit status is 0.
fn ana(words: &[&str], state: Option<&Path>) -> (String, String, bool) {
    let ana = Ana::try_parse_from([&["policy"], words].concat()).unwrap_or_else(|error| panic!("{error}"));
    let (output, ok) = answer(&ana.args, state);
    (output.stdout, output.stderr, ok)
}

struct Machine {
    folder: tempfile::TempDir,
}

impl Machine {
    /// A state folder with a policy for `tool` (which is there) and a script.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let machine = Self { folder };
        machine.executable("tool", "\x7fELF");
        fs::hard_link(machine.path("tool"), machine.path("hard-link")).unwrap();
        std::os::unix::fs::symlink(machine.path("tool"), machine.path("link")).unwrap();
        machine.executable("deploy.sh", "#!/bin/sh -e\n");
        machine.executable("free.sh", &format!("#! {} -x\n", machine.path("tool")));
        machine.write("policy.toml", &machine.policy());
        machine
    }

    fn policy(&self) -> String {
        format!(
            "version = 1
[[exec]]
name = 'tool'
file = '{}'
allow = [['status', '**'], ['-x', '*', 'go']]
[exec.test]
allow = ['tool status']
[[exec]]
name = 'deploy'
file = '~/deploy.sh'
allow = [['--help']]
otherwise = 'deny'",
            self.path("tool")
        )
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn executable(&self, name: &str, text: &str) {
        self.write(name, text);
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// The words with the machine's home, on its policy.
    fn ana(&self, words: &[&str]) -> (String, String, bool) {
        let home = self.path("");
        let mut all = vec![words[0]];
        if words[0] == "explain" {
            all.push(if words.contains(&"connect") { "connect" } else { "exec" });
        }
        all.extend(["--home", &home]);
        all.extend(words[1..].iter().filter(|word| **word != "connect"));
        ana(&all, Some(self.folder.path()))
    }

    fn verdict(&self, command: &[&str]) -> (String, String) {
        let (stdout, stderr, ok) = self.ana(&[&["explain", "--json", "--"], command].concat());
        assert!(ok, "{stdout}{stderr}");
        let value: serde_json::Value = serde_json::from_str(&stdout).unwrap();
        (value["action"].as_str().unwrap().to_owned(), value["rule"].as_str().unwrap_or("none").to_owned())
    }
}

#[test]
fn check_counts_rules_and_tests() {
    let machine = Machine::new();
    assert_eq!(machine.ana(&["check"]), ("ok: 2 rules, 1 self-test passed\n".into(), String::new(), true));
    let (json, _, ok) = machine.ana(&["check", "--json", &machine.path("policy.toml")]);
    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert!(ok);
    assert_eq!((&value["ok"], &value["rules"], &value["tests"]), (&true.into(), &2.into(), &1.into()));
    assert_eq!(value["sha256"].as_str().unwrap().len(), 43);
}

#[test]
fn check_reads_the_drop_ins_in_order() {
    let machine = Machine::new();
    fs::create_dir(machine.path("policy.d")).unwrap();
    machine.write("policy.d/2.toml", "version = 1\nx = 1");
    machine.write("policy.d/1.toml", "version = 1\ny = 1");
    machine.write("policy.d/notes.txt", "not a policy");
    let (stdout, stderr, ok) = machine.ana(&["check"]);
    assert!(!ok && stdout.is_empty());
    let (one, two) = (stderr.find("1.toml:2:1").unwrap(), stderr.find("2.toml:2:1").unwrap());
    assert!(one < two && stderr.contains("2 errors"), "{stderr}");
}

#[test]
fn check_shows_errors_with_a_caret_or_as_json() {
    let machine = Machine::new();
    machine.write("bad.toml", "version = 1\nverson = 2");
    let file = machine.path("bad.toml");
    let (stdout, stderr, ok) = machine.ana(&["check", &file]);
    assert!(!ok && stdout.is_empty());
    assert!(stderr.contains("bad.toml:2:1\n") && stderr.contains("| ^^^^^^"), "{stderr}");
    let (stdout, stderr, ok) = machine.ana(&["check", "--json", &file]);
    assert!(!ok && stderr.is_empty());
    let value: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    let error = &value["errors"][0];
    assert_eq!((&value["ok"], &error["line"], &error["column"]), (&false.into(), &2.into(), &1.into()));
    assert_eq!(error["file"], file.as_str());
}

#[test]
fn unreadable_policies_are_named() {
    let machine = Machine::new();
    let (_, stderr, ok) = machine.ana(&["check", "/nowhere/policy.toml"]);
    assert!(!ok);
    assert!(stderr.starts_with("ana: cannot read the policy /nowhere/policy.toml: No such file"), "{stderr}");
    fs::write(machine.path("bytes.toml"), b"\xff").unwrap();
    let (_, stderr, ok) = machine.ana(&["check", &machine.path("bytes.toml")]);
    assert!(!ok && stderr.contains("is not UTF-8 text"), "{stderr}");
    let (stdout, _, ok) = machine.ana(&["check", "--json", "/nowhere/policy.toml"]);
    assert!(!ok && stdout.contains("cannot read the policy"), "{stdout}");
}

#[test]
fn check_warns_about_files_that_are_not_there() {
    let machine = Machine::new();
    fs::remove_file(machine.path("deploy.sh")).unwrap();
    let (stdout, stderr, ok) = machine.ana(&["check"]);
    assert!(ok && stdout.starts_with("ok: "));
    assert!(stderr.starts_with("warning: rule \"deploy\" lists "), "{stderr}");
}

#[test]
fn explain_says_which_line_decides() {
    let machine = Machine::new();
    let tool = machine.path("tool");
    let (stdout, stderr, ok) = machine.ana(&["explain", "--", &tool, "push"]);
    let policy = machine.path("policy.toml");
    let expected = format!(
        "verdict  approve\nrule     tool\nbecause  {policy}:2:1: otherwise = \"approve\"\nprogram  {tool}\n\
         asks     for a touch, within 120 s\n"
    );
    assert_eq!((stdout, stderr, ok), (expected, String::new(), true));
    let (stdout, ..) = machine.ana(&["explain", "--", &tool, "status"]);
    assert!(stdout.contains(&format!("because  {policy}:5:10: allow [\"status\", \"**\"]\n")), "{stdout}");
}

#[test]
fn explain_knows_files_by_inode_and_names_by_argv0() {
    let machine = Machine::new();
    let own = |verdict: &str, rule: &str| (verdict.to_owned(), rule.to_owned());
    assert_eq!(machine.verdict(&[&machine.path("tool"), "status"]), own("allow", "tool"));
    assert_eq!(machine.verdict(&[&machine.path("hard-link"), "status"]), own("approve", "tool"));
    assert_eq!(machine.verdict(&[&machine.path("link"), "status"]), own("approve", "tool"));
    assert_eq!(machine.verdict(&["/bin/true"]), own("allow", "none"));
}

#[test]
fn explain_follows_scripts() {
    let machine = Machine::new();
    let own = |verdict: &str, rule: &str| (verdict.to_owned(), rule.to_owned());
    let deploy = machine.path("deploy.sh");
    assert_eq!(machine.verdict(&[&deploy, "--help"]), own("allow", "deploy"));
    assert_eq!(machine.verdict(&[&deploy, "prod"]), own("deny", "deploy"));
    assert_eq!(machine.verdict(&["/bin/sh", &deploy, "--help"]), own("deny", "deploy"));
    // Its interpreter is the listed tool: `tool -x free.sh go`.
    assert_eq!(machine.verdict(&[&machine.path("free.sh"), "go"]), own("allow", "tool"));
    assert_eq!(machine.verdict(&[&machine.path("free.sh"), "stop"]), own("approve", "tool"));
}

#[test]
fn explain_warns_when_path_finds_another_file() {
    let machine = Machine::new();
    let text = "version = 1\n[[exec]]\nname = 'sh'\nfile = '/opt/none/sh'";
    machine.write("policy.toml", text);
    let (stdout, stderr, ok) = machine.ana(&["explain", "--", "sh", "-c", "x"]);
    assert!(ok && stdout.contains("because  no rule lists this program"), "{stdout}");
    assert!(stderr.starts_with("warning: PATH finds /"), "{stderr}");
    assert!(stderr.contains("listed: /opt/none/sh"), "{stderr}");
    let (_, stderr, _) = machine.ana(&["check"]);
    assert!(stderr.contains("warning: PATH finds /"), "{stderr}");
}

#[test]
fn explain_names_what_it_cannot_find() {
    let machine = Machine::new();
    let (_, stderr, ok) = machine.ana(&["explain", "--", "no-such-program-here"]);
    assert_eq!((stderr.as_str(), ok), ("ana: no-such-program-here is not found in PATH\n", false));
    let (_, stderr, ok) = machine.ana(&["explain", "--", "/nowhere/x"]);
    assert!(!ok && stderr.starts_with("ana: cannot look at /nowhere/x: No such file"), "{stderr}");
}

#[test]
fn explain_takes_another_policy_file() {
    let machine = Machine::new();
    machine.write("other.toml", &machine.policy().replace("'tool'", "'other'"));
    let (stdout, ..) =
        machine.ana(&["explain", "--policy", &machine.path("other.toml"), "--", &machine.path("tool")]);
    assert!(stdout.contains("rule     other\n"), "{stdout}");
}

#[test]
fn the_arguments_are_consistent() {
    use clap::CommandFactory;
    Ana::command().debug_assert();
    assert!(Ana::try_parse_from(["policy", "explain", "connect", "--", "x"]).is_err());
    assert!(Ana::try_parse_from(["policy", "explain", "exec"]).is_err());
    assert!(Ana::try_parse_from(["policy", "explain"]).is_err());
    let before_the_kind = ["policy", "explain", "--json", "--policy", "p", "connect", "a:1"];
    assert!(Ana::try_parse_from(before_the_kind).is_ok());
    for bad in ["a", "a:0", "*.a:1", "https://a:1"] {
        assert!(Ana::try_parse_from(["policy", "explain", "connect", bad]).is_err(), "{bad}");
    }
}

/// What a rule of the policy says about a connection, and where it would be otherwise.
#[test]
fn explain_says_what_happens_to_a_connection() {
    let machine = Machine::new();
    let rules = "
[network]
default = 'deny'
[[connect]]
name = 'code'
host = 'github.com'
verdict = 'allow'
[[connect]]
name = 'payments'
host = '*.stripe.com'
for = '10m'
[[connect]]
name = 'by tool'
cidr = '192.0.2.1'
exe = 'TOOL'
verdict = 'allow'
"
    .replace("TOOL", &machine.path("tool"));
    machine.write("policy.toml", &(machine.policy() + &rules));
    let policy = machine.path("policy.toml");
    let (stdout, stderr, ok) = machine.ana(&["explain", "connect", "GitHub.com:443"]);
    let expected = format!(
        "verdict  allow
rule     code
because  {policy}:17:8: allow host \"github.com\", shown: github.com
connect  github.com:443
but      if ana's own look-up does not give the address for the name:
         deny, rule builtin:network, no rule decides: [network] default = \"deny\"; rule \"code\" does not allow it: \
         the address is not known to be that of the name shown
but      if it shows no name, or one behind which another may be hidden (ECH):
         deny, rule builtin:network, no rule decides: [network] default = \"deny\"; rule \"code\" does not allow it: \
         it shows no name
"
    );
    assert_eq!((stdout.as_str(), ok), (expected.as_str(), true));
    assert_eq!(stderr, "note: rules with `cidr` go by the address: explain that, too\n");
    let (stdout, ..) = machine.ana(&["explain", "connect", "api.stripe.com:443"]);
    assert!(
        stdout.ends_with("asks     for a touch, within 120 s\ngrants   every one like it for 600 s\n"),
        "{stdout}"
    );
    let tool = machine.path("link");
    let (stdout, ..) = machine.ana(&["explain", "connect", "--exe", &tool, "192.0.2.1:22"]);
    assert!(stdout.starts_with("verdict  allow\nrule     by tool\n"), "{stdout}");
    let (stdout, stderr, _) = machine.ana(&["explain", "connect", "--exe", "/bin/true", "192.0.2.1:22"]);
    assert!(stdout.starts_with("verdict  deny\nrule     builtin:network\n"), "{stdout}");
    assert!(stderr.contains("no [[exec]] rule lists the program"), "{stderr}");
    let (_, stderr, ok) = machine.ana(&["explain", "connect", "--exe", "/nowhere/x", "192.0.2.1:22"]);
    assert!(!ok && stderr.starts_with("ana: cannot look at /nowhere/x"), "{stderr}");
    let (json, ..) = machine.ana(&["explain", "connect", "--json", "127.0.0.1:22"]);
    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&value["rule"], &value["scope"]), (&"builtin:local-services".into(), &"session".into()));
    let (stdout, ..) = machine.ana(&["check"]);
    assert_eq!(stdout, "ok: 5 rules, 1 self-test passed\n");
}

#[test]
fn without_a_connect_gate_everything_is_reached() {
    let machine = Machine::new();
    let (stdout, stderr, ok) = machine.ana(&["explain", "connect", "api.stripe.com:443"]);
    let expected = "verdict  allow\nbecause  the policy has neither [network] nor [[connect]]\nconnect  api.stripe.com:443\n";
    assert_eq!((stdout.as_str(), stderr.as_str(), ok), (expected, "", true));
}

#[test]
fn init_adds_a_profile_for_connections() {
    for (profile, default) in [("approve", "allow"), ("strict", "deny")] {
        let (stdout, _, ok) = ana(&["init", "--git", "--network", profile], None);
        assert!(ok && stdout.contains(&format!("default = \"{default}\"")), "{stdout}");
    }
}
