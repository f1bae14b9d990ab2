//! What needs no signer: presets, a bundle to start from, checks, tests, differences, signatures. For anybody's own CI.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::Path;

use bitcoin::Network;
use claviger_policy::bundle::{Bundle, BundleError, InForce, NAMESPACE, text_to_sign};
use claviger_policy::preset::{self, Preset};
use claviger_policy::tooling::{self, CheckReport, PolicyDiff};
use serde::Serialize;
use serde_json::json;

use super::dir;
use crate::cli::{CliError, Output, time};

/// The bundle in `dir`.
pub(super) fn load(path: &Path, network: Network) -> Result<Bundle, CliError> {
    let bundle = dir::read(path).and_then(|files| Bundle::parse(files, network));
    bundle.map_err(|errors| no_bundle(path, &errors))
}

fn no_bundle(path: &Path, errors: &[BundleError]) -> CliError {
    let path = path.display();
    match errors {
        [error] => CliError::new(format!("{path}: {error}"), &error.hint),
        [error, more @ ..] => {
            let hint = format!("{} `claviger policy check {path}` tells all {}.", error.hint, more.len() + 1);
            CliError::new(format!("{path}: {error}"), hint)
        }
        [] => CliError::new(format!("{path}: not a bundle"), "Run `claviger policy check` on it."),
    }
}

/// `policy presets`: all, or one with its numbers and rules.
pub(super) fn presets(name: Option<&str>, output: &Output) -> Result<(), CliError> {
    #[derive(Serialize)]
    struct Number {
        name: &'static str,
        default: u64,
        doc: &'static str,
    }
    #[derive(Serialize)]
    struct Shown {
        name: &'static str,
        doc: &'static str,
        default: bool,
        permits: Vec<&'static str>,
        numbers: Vec<Number>,
    }
    let chosen = name.map(by_name).transpose()?;
    let shown = |preset: &'static Preset| Shown {
        name: preset.name,
        doc: preset.doc,
        default: preset.name == preset::DEFAULT,
        permits: preset.docs().collect(),
        numbers: preset
            .numbers()
            .map(|(number, default)| Number { name: number.name, default, doc: number.doc })
            .collect(),
    };
    if let Some(preset) = chosen {
        let preset = shown(preset);
        output.result(&preset, || {
            let mut text = format!("{}\n{}\n", preset.name, preset.doc);
            preset.permits.iter().for_each(|doc| text += &format!("\n- {doc}"));
            text += "\n\n[numbers]";
            for Number { name, default, doc } in &preset.numbers {
                text += &format!("\n{name:<24} {default:>15}  {doc}");
            }
            text
        });
        return Ok(());
    }
    let presets: Vec<_> = Preset::all().iter().map(shown).collect();
    output.result(&presets, || {
        let rows = presets.iter().map(|preset| format!("{:<13} {}", preset.name, preset.doc));
        let rows: Vec<_> = rows.collect();
        format!("{}\n\nclaviger policy presets NAME shows its numbers; claviger policy init DIR --preset NAME starts from it.", rows.join("\n"))
    });
    Ok(())
}

/// `policy init`: a directory with a complete bundle.
pub(super) fn init(path: &Path, name: &str, output: &Output) -> Result<(), CliError> {
    let preset = by_name(name)?;
    let failed = |error: std::io::Error| {
        CliError::new(format!("cannot write {}: {error}", path.display()), "Choose a directory that is not there yet.")
    };
    fs::create_dir(path).map_err(failed)?;
    let files = preset.starter();
    for (name, text) in &files {
        let file = OpenOptions::new().write(true).create_new(true).open(path.join(name));
        file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(failed)?;
    }
    let names: Vec<_> = files.iter().map(|(name, _)| name).collect();
    let value = json!({ "dir": path, "preset": preset.name, "files": names });
    output.result(&value, || {
        let dir = path.display();
        format!(
            "{dir} is a complete policy: the preset {}.\n\
             Edit the numbers in {dir}/policy.toml, then: claviger policy check {dir} && claviger policy test {dir}",
            preset.name
        )
    });
    Ok(())
}

fn by_name(name: &str) -> Result<&'static Preset, CliError> {
    Preset::by_name(name).ok_or_else(|| {
        let error = preset::PresetError::Unknown(name.to_owned());
        CliError::new(&error, error.hint())
    })
}

/// `policy check`: all that is wrong, each with its place and the next step.
pub(super) fn check(path: &Path, network: Network, strict: bool, output: &Output) -> Result<(), CliError> {
    let report = match dir::read(path) {
        Ok(files) => tooling::check(files, network).0,
        Err(errors) => CheckReport::refused(errors),
    };
    output.result(&report, || report.to_string());
    let (errors, warnings) = (report.errors.len(), report.findings.len());
    if !report.passes() {
        let errors = if errors == 1 { "an error".to_owned() } else { format!("{errors} errors") };
        return Err(CliError::new(format!("{}: {errors}", path.display()), "Each says what to do."));
    }
    if strict && warnings > 0 {
        return Err(CliError::new(
            format!("{}: odd in {warnings} ways", path.display()),
            "Each says what to do; without --strict they are for people to judge.",
        ));
    }
    Ok(())
}

/// `policy check --text-to-sign`: the text alone, as `ssh-keygen` takes it.
pub(super) fn text(path: &Path, network: Network, output: &Output) -> Result<(), CliError> {
    let bundle = load(path, network)?;
    let text = text_to_sign(bundle.version(), bundle.hash());
    output.result(&json!({ "text": text, "namespace": NAMESPACE }), || text.clone());
    Ok(())
}

/// `policy check --follows`: whether the bundle could be applied after the one in the directory `before`.
pub(super) fn follows(path: &Path, before: &Path, network: Network, output: &Output) -> Result<(), CliError> {
    let (candidate, active) = (load(path, network)?, load(before, network)?);
    let now_ms = time::now_ms();
    let applied = InForce::of(&active).apply(&candidate, Some(&active), None, now_ms);
    applied.map_err(|error| CliError::new(format!("{}: {error}", path.display()), error.hint()))?;
    let text = text_to_sign(candidate.version(), candidate.hash());
    let signed = active.signing().map(|signing| {
        signing.signers(&text, candidate.files(), &active.policy().approvals, now_ms).unwrap_or_default()
    });
    let value = json!({ "version": candidate.version(), "follows": active.version(), "signed_by": signed });
    output.result(&value, || match &signed {
        Some(people) => {
            format!("version {} may follow {}: signed by {}", candidate.version(), active.version(), people.join(", "))
        }
        None => format!("version {} may follow {}: no signatures are asked for", candidate.version(), active.version()),
    });
    Ok(())
}

/// `policy test`.
pub(super) fn test(path: &Path, network: Network, output: &Output) -> Result<(), CliError> {
    let report = tooling::test(&load(path, network)?);
    output.result(&report, || report.to_string());
    if report.passes() {
        return Ok(());
    }
    let all = report.passed + report.failed.len();
    Err(CliError::new(
        format!("{}: {} of {all} tests failed", path.display(), report.failed.len()),
        "Correct the policy, or the test that says what it should decide.",
    ))
}

/// `policy diff OLD NEW`.
pub(super) fn diff(old: &Path, new: &Path, network: Network, output: &Output) -> Result<(), CliError> {
    let (old, new) = (load(old, network)?, load(new, network)?);
    differences(&tooling::diff(Some(&old), &new), output);
    Ok(())
}

/// What changes, or that nothing does.
pub(super) fn differences(diff: &PolicyDiff, output: &Output) {
    output.result(diff, || diff.to_string());
}

/// `policy show DIR`.
pub(super) fn show(path: &Path, network: Network, cedar: bool, output: &Output) -> Result<(), CliError> {
    shown(&load(path, network)?, cedar, output);
    Ok(())
}

/// What a bundle says.
pub(super) fn shown(bundle: &Bundle, cedar: bool, output: &Output) {
    let report = tooling::show(bundle);
    output.result(&report, || if cedar { report.cedar() } else { report.to_string() });
}
