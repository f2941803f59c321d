//! The promises of ana, one file each, kept by the real binaries on the running kernel. Run by `cargo xtask test`,
//! as root. The names that end in `without_ana` prove that an attack works where nothing stops it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "test code: a panic names the broken promise and keeps the stack trace"
)]

mod a_person_decides;
mod a_person_starts_it;
mod agents_work;
mod allowed_runs_at_once;
mod an_assertion_counts_once;
mod argument_files_are_judged;
mod attack_by_abi;
mod attack_by_hello;
mod attack_by_dns;
mod attack_by_datagram;
mod attack_by_connect;
mod attack_by_another_socket;
mod attack_by_copy;
mod attack_by_format;
mod attack_by_grant;
mod attack_by_name;
mod attack_by_number;
mod attack_by_odd_calls;
mod attack_by_privilege;
mod attack_by_quick_way;
mod attack_by_race;
mod attack_by_script;
mod attack_by_shape;
mod attack_by_stalling;
mod attack_by_surroundings;
mod attack_by_thread;
mod attack_on_processes;
mod attack_on_the_person;
mod attack_on_the_supervisor;
mod attack_on_the_terminal;
mod bad_input_is_refused;
mod callers_do_not_stall;
mod connect_claude;
mod connect_clients;
mod connect_denied;
mod connect_flood;
mod connect_evidence;
mod connect_grants;
mod connect_limits;
mod connect_local;
mod connect_names;
mod connect_other_protocols;
mod connect_waits;
mod evidence_comes_first;
mod evidence_holds;
mod example_policy_works;
mod exclusive_stops_the_rest;
mod git_asks_once;
mod interpreters_are_seen_through;
mod json_is_described;
mod losses_are_told;
mod many_wait_at_once;
mod one_question_for_many;
mod ordinary_work_goes_on;
mod privilege_is_asked_for;
mod replaced_files_stay_protected;
mod security_key_approves;
mod security_key_enrolls;
mod security_key_lies;
mod security_key_pins;
mod sessions_are_apart;
mod the_keepers_die;
mod the_list_of_passkeys_counts;
mod the_modes_are_restored;
mod the_passkey_is_asked_in_place;
mod the_question_is_readable;
mod the_screen_is_as_it_was;
mod the_session_is_transparent;
mod the_supervisor_dies;
mod the_supervisor_hangs;
mod the_terminal_is_a_terminal;
mod unprotectable_files_end_the_session;
mod whatever_the_arguments;
