//! `esgz profile k8s`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use regex::Regex;
use serde_json::Value;

use super::super::output::Output;
use super::super::{Failure, store_failure};
use super::files;
use super::recording::{say, seconds};
use crate::digest::Digest;
use crate::image::Reference;
use crate::k8s::pod::Amount;
use crate::k8s::run::{Collected, Limits, Watcher};
use crate::k8s::{self, Kubectl, Spec, yaml};
use crate::profile;
use crate::record::Which;
use crate::store;

/// Seconds that the pod lives beyond what its recorder and its start may take.
const SLACK: u64 = 300;

/// Profile an image in a Kubernetes cluster
///
/// Runs one pod with IMAGE's workload under `esgz profile run`, streams its log to standard error, fetches the profile and deletes
/// the pod, also when something fails or on Ctrl-C. Talks to the cluster through kubectl. COMMAND is the whole command of the
/// workload; without one it is the image's own, which is read from the registry.
#[derive(Debug, clap::Args)]
#[group(id = "k8s-args")]
pub(super) struct Args {
    /// Image to profile, as the nodes pull it: host/repository:tag
    image: Reference,
    /// Image that has the esgz binary as /esgz (deploy/Dockerfile makes one)
    #[arg(long, value_name = "IMAGE")]
    esgz_image: String,
    /// Profile to write
    #[arg(long, short, value_name = "FILE", required_unless_present = "print")]
    output: Option<PathBuf>,
    /// Print the pod as YAML instead of running it
    #[arg(long)]
    print: bool,
    /// What the pod may do: privileged records through the kernel; restricted keeps to the pod security level of that name; auto
    /// takes privileged and, where the cluster refuses that, restricted
    #[arg(long, value_enum, default_value_t = Variant::Auto)]
    variant: Variant,
    /// User id of the restricted pod [default: the image's, where that is a number]
    #[arg(long, value_name = "UID", value_parser = clap::value_parser!(u32).range(1..))]
    run_as_user: Option<u32>,
    /// Platform of the image, to read its command
    #[arg(long, value_name = "OS/ARCH", default_value = "linux/amd64")]
    platform: String,
    #[command(flatten)]
    recorder: Recorder,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    cluster: Cluster,
    /// The workload's command, whole
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// The options of `esgz profile run` that go into the pod. What that command is called with in the pod is decided here alone.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Recording")]
struct Recorder {
    /// Stop when URL gives a 2xx answer, inside the pod
    #[arg(long, value_name = "URL")]
    until_http: Option<String>,
    /// Stop when URL (…/v1/chat/completions) has given a whole chat answer, inside the pod
    #[arg(long, value_name = "URL")]
    until_chat: Option<String>,
    /// Stop when the workload's log has a line that matches
    #[arg(long, value_name = "REGEX")]
    until_log: Option<Regex>,
    /// Stop after that many seconds
    #[arg(long = "for", value_name = "SECONDS", value_parser = period, conflicts_with_all = ["until_http", "until_chat", "until_log"])]
    period: Option<Duration>,
    /// Give up when the condition has not come after that many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 1800, value_parser = clap::value_parser!(u64).range(1..=864_000))]
    timeout: u64,
    /// Record on for that many seconds after the condition has come
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(0..=86_400))]
    grace: Option<u64>,
    /// How to record [default: the best that works there]
    #[arg(long = "recorder", value_enum)]
    how: Option<Which>,
    /// Fetch what start-up writes as a tar archive too; compressed it must fit into 9 MiB of log
    #[arg(long, value_name = "FILE")]
    capture: Option<PathBuf>,
}

impl Recorder {
    fn arguments(&self, image: &Reference) -> Vec<String> {
        let options = [
            ("--image", Some(image.to_string())),
            ("--timeout", Some(self.limit().to_string())),
            ("--until-http", self.until_http.clone()),
            ("--until-chat", self.until_chat.clone()),
            ("--until-log", self.until_log.as_ref().map(ToString::to_string)),
            ("--for", self.period.map(|p| p.as_secs_f64().to_string())),
            ("--grace", self.grace.map(|s| s.to_string())),
            ("--recorder", self.how.map(|how| how.name().to_owned())),
        ];
        // In one word, as a value may begin with a dash.
        options.iter().filter_map(|(option, value)| Some(format!("{option}={}", value.as_ref()?))).collect()
    }

    /// Seconds within which the condition has to come; a period that is longer is meant to be waited for.
    fn limit(&self) -> u64 {
        self.timeout.max(self.period.map_or(0, |p| p.as_secs() + u64::from(p.subsec_nanos() > 0)))
    }
}

/// Where in the cluster, and with what.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Pod")]
struct Place {
    /// GPUs of the nvidia.com/gpu resource; their taint is tolerated
    #[arg(long, value_name = "N")]
    gpus: Option<u32>,
    /// CPUs reserved, and the most that may be used
    #[arg(long, value_name = "REQUEST[:LIMIT]", value_parser = amount)]
    cpu: Option<Amount>,
    /// Memory reserved, and the most that may be used
    #[arg(long, value_name = "REQUEST[:LIMIT]", value_parser = amount)]
    memory: Option<Amount>,
    /// Size of /dev/shm in memory, such as 2Gi
    #[arg(long, value_name = "SIZE")]
    shm_size: Option<String>,
    /// Persistent volume claim to mount
    #[arg(long = "volume-pvc", value_name = "NAME:PATH", value_parser = claim)]
    claims: Vec<(String, String)>,
    /// Variable of the workload; for secrets use --env-from-secret
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    env: Vec<(String, String)>,
    /// Secret whose keys become variables of the workload
    #[arg(long, value_name = "NAME")]
    env_from_secret: Vec<String>,
    /// Label that the node must have
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    node_selector: Vec<(String, String)>,
    /// Label of the pod
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    label: Vec<(String, String)>,
    /// Secret with credentials of the registry
    #[arg(long, value_name = "NAME")]
    image_pull_secret: Vec<String>,
    /// Service account
    #[arg(long, value_name = "NAME")]
    service_account: Option<String>,
    /// Runtime class
    #[arg(long, value_name = "NAME")]
    runtime_class: Option<String>,
    /// Name of the pod [default: esgz-profile- and something that is not there yet]
    #[arg(long, value_name = "NAME")]
    pod_name: Option<String>,
    /// JSON merge patch (RFC 7386) over the whole pod, applied last
    #[arg(long, value_name = "FILE")]
    patch: Option<PathBuf>,
}

/// How the cluster is talked to.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Cluster")]
struct Cluster {
    /// Namespace
    #[arg(long, short, value_name = "NAME")]
    namespace: Option<String>,
    /// Context of the kubeconfig
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    /// Kubeconfig
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<String>,
    /// Leave the pod there
    #[arg(long, conflicts_with = "print")]
    keep: bool,
    /// Seconds until the workload must have started: finding a node and pulling the image are in it
    #[arg(long, value_name = "SECONDS", default_value_t = 1800, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    start_timeout: u64,
    /// Milliseconds between two looks at the pod
    #[arg(long, hide = true, default_value_t = 1000)]
    poll_ms: u64,
    /// Seconds from the workload's end to the last line of the collecting container: on a slow node
    #[arg(long, hide = true, default_value_t = 60)]
    settle: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Variant {
    Auto,
    Privileged,
    Restricted,
}

fn period(text: &str) -> Result<Duration, String> {
    let most = Duration::from_hours(240);
    let period = seconds(text)?;
    if period > most { Err(format!("expected at most {} seconds", most.as_secs())) } else { Ok(period) }
}

fn pair(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').filter(|(name, _)| !name.is_empty());
    pair.map(|(n, v)| (n.into(), v.into())).ok_or_else(|| "expected NAME=VALUE".into())
}

fn claim(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once(':').filter(|(name, path)| !name.is_empty() && path.starts_with('/'));
    pair.map(|(n, p)| (n.into(), p.into())).ok_or_else(|| "expected NAME:/PATH".into())
}

fn amount(text: &str) -> Result<Amount, String> {
    let (request, limit) = text.split_once(':').map_or((text, None), |(r, l)| (r, Some(l)));
    if request.is_empty() || limit.is_some_and(str::is_empty) {
        return Err("expected a quantity such as 4 or 16Gi, or two with a colon between".into());
    }
    Ok(Amount { request: request.into(), limit: limit.map(Into::into) })
}

pub(super) fn run(args: &Args, out: &Output) -> Result<u8, Failure> {
    if !matches!(args.image, Reference::Registry(_)) {
        return Err(Failure::new(2, format!("{}: expected host/repository:tag, which a node can pull", args.image)));
    }
    let patch = args.place.patch.as_deref().map(read_patch).transpose()?;
    let mut spec = spec(args, args.variant != Variant::Restricted, out)?;
    if let Some(patch) = &patch {
        check_patch(&spec, patch)?;
    }
    if args.print {
        print(&pod(&spec, patch.as_ref()), out)?;
        return Ok(0);
    }
    for path in args.output.iter().chain(&args.recorder.capture) {
        files::check(path)?;
    }
    let kubectl = Kubectl::new(args.cluster.options());
    let limits = Limits {
        start: Duration::from_secs(args.cluster.start_timeout),
        run: Duration::from_secs(args.recorder.limit() + args.recorder.grace.unwrap_or_default() + SLACK / 2),
        settle: Duration::from_secs(args.cluster.settle),
        poll: Duration::from_millis(args.cluster.poll_ms),
    };
    let watcher = Console { out: out.clone(), interrupted: interruption(out) };
    let capture = args.recorder.capture.is_some();
    let go = |spec: &Spec| {
        let options =
            k8s::run::Options { capture, keep: args.cluster.keep, named: args.place.pod_name.is_some(), limits };
        k8s::run::run(&kubectl, &pod(spec, patch.as_ref()), &options, &watcher)
    };
    let collected = match go(&spec) {
        Err(e) if args.variant == Variant::Auto && e.is_of_privilege() => {
            out.say(format_args!("{e}\ntrying again without privileges"));
            spec.privileged = false;
            spec.user = user(args, out);
            go(&spec)
        }
        other => other,
    };
    take(args, collected.map_err(failure)?, out)
}

fn failure(error: k8s::Error) -> Failure {
    let code = if matches!(error, k8s::Error::Interrupted) { 130 } else { 1 };
    let hint = error.hint().map(ToOwned::to_owned);
    Failure { code, hint, error: Box::new(error) }
}

/// Writes what came out of the pod.
fn take(args: &Args, collected: Collected, out: &Output) -> Result<u8, Failure> {
    let profile = profile::read(&collected.profile)?;
    if let Some(path) = &args.output {
        files::write(path, &collected.profile, out)?;
    }
    if let Some((path, bytes)) = args.recorder.capture.as_ref().zip(collected.capture) {
        files::write(path, &bytes, out)?;
    }
    say(&profile, out);
    if let Some(why) = collected.failed {
        let what = if args.recorder.capture.is_some() { "the capture" } else { "the rest" };
        let failed = Failure::new(1, format!("the profile is there, but {what} did not arrive: {why}"));
        return Err(failed.hint("record without --capture, or less of it"));
    }
    Ok(0)
}

impl Cluster {
    /// What every call of kubectl is told. The namespace stands in the pod too, for who applies it by hand.
    fn options(&self) -> Vec<String> {
        let options =
            [("--kubeconfig", &self.kubeconfig), ("--context", &self.context), ("--namespace", &self.namespace)];
        options.iter().filter_map(|(option, value)| Some(format!("{option}={}", value.as_ref()?))).collect()
    }
}

fn spec(args: &Args, privileged: bool, out: &Output) -> Result<Spec, Failure> {
    let place = &args.place;
    let command = if args.command.is_empty() { own_command(args)? } else { args.command.clone() };
    let grace = args.recorder.grace.unwrap_or_default();
    Ok(Spec {
        name: place.pod_name.clone().unwrap_or_else(|| unique(&args.image)),
        namespace: args.cluster.namespace.clone(),
        image: args.image.to_string(),
        esgz_image: args.esgz_image.clone(),
        command,
        recorder: args.recorder.arguments(&args.image),
        seconds: args.cluster.start_timeout + args.recorder.limit() + grace + SLACK,
        capture: args.recorder.capture.is_some(),
        privileged,
        user: if privileged { None } else { user(args, out) },
        gpus: place.gpus.filter(|n| *n > 0),
        cpu: place.cpu.clone(),
        memory: place.memory.clone(),
        shm: place.shm_size.clone(),
        claims: place.claims.clone(),
        env: place.env.clone(),
        env_secrets: place.env_from_secret.clone(),
        labels: place.label.clone(),
        node_selector: place.node_selector.clone(),
        pull_secrets: place.image_pull_secret.clone(),
        service_account: place.service_account.clone(),
        runtime_class: place.runtime_class.clone(),
    })
}

/// A name that no other run has.
fn unique(image: &Reference) -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
    let hex = Digest::of(format!("{image} {now} {}", std::process::id()).as_bytes()).hex();
    format!("esgz-profile-{}", &hex[..10])
}

fn config(args: &Args) -> Result<Value, Failure> {
    let image = store::open(&args.image, false).and_then(|s| s.image(&args.platform));
    let raw = image.map_err(|e| store_failure(&e, &args.image))?.config.raw;
    Ok(raw.get("config").cloned().unwrap_or_default())
}

/// Entrypoint and arguments of the image.
fn own_command(args: &Args) -> Result<Vec<String>, Failure> {
    let config = config(args)
        .map_err(|f| f.hint("or give the workload's command behind --, then the image is not read here"))?;
    let words = |key: &str| {
        let list = config.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
        list.into_iter().filter_map(|w| Some(w.as_str()?.to_owned())).collect::<Vec<_>>()
    };
    let command = [words("Entrypoint"), words("Cmd")].concat();
    if command.is_empty() {
        return Err(Failure::new(1, format!("{} has no command of its own", args.image)).hint("give one behind --"));
    }
    Ok(command)
}

/// Which user a pod without privileges runs as. An image's user that is a name, or root, is none that "restricted" lets in.
fn user(args: &Args, out: &Output) -> Option<u32> {
    if args.run_as_user.is_some() {
        return args.run_as_user;
    }
    let why = match config(args) {
        Err(e) => format!("the image could not be read here to see its user ({})", super::super::chain(&*e.error)),
        Ok(config) => {
            let user = config.get("User").and_then(Value::as_str).unwrap_or_default();
            if let Some(user) = user.split(':').next().and_then(|u| u.parse().ok()).filter(|u| *u > 0) {
                return Some(user);
            }
            "the image names no user by a number other than 0".into()
        }
    };
    out.say(format_args!(
        "warning: {why}: where the level restricted is enforced the pod is refused; see --run-as-user"
    ));
    None
}

fn read_patch(path: &Path) -> Result<Value, Failure> {
    let text = std::fs::read(path).map_err(|e| Failure::new(1, format!("{}: {e}", path.display())))?;
    let patch: Value =
        serde_json::from_slice(&text).map_err(|e| Failure::new(1, format!("{}: not JSON: {e}", path.display())))?;
    if patch.is_object() {
        Ok(patch)
    } else {
        Err(Failure::new(1, format!("{}: expected a JSON object", path.display())))
    }
}

/// What a patch may not change: a pod that is made elsewhere, or as something else, would be neither found nor deleted.
fn check_patch(spec: &Spec, patch: &Value) -> Result<(), Failure> {
    let (before, after) = (spec.pod(), pod(spec, Some(patch)));
    for (path, hint) in [
        ("/metadata/name", "see --pod-name"),
        ("/metadata/namespace", "see --namespace"),
        ("/kind", "only the pod itself can be patched"),
    ] {
        if before.pointer(path) != after.pointer(path) {
            return Err(Failure::new(2, format!("--patch changes {path}, by which the pod is found")).hint(hint));
        }
    }
    Ok(())
}

fn pod(spec: &Spec, patch: Option<&Value>) -> Value {
    let mut pod = spec.pod();
    if let Some(patch) = patch {
        k8s::merge(&mut pod, patch);
    }
    pod
}

fn print(pod: &Value, out: &Output) -> Result<(), Failure> {
    let name = pod.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
    let head = format!(
        "# kubectl apply -f FILE; when it runs:\n# kubectl logs --follow {name} -c collect | esgz profile k8s-receive -o profile.json\n"
    );
    files::write(Path::new("-"), (head + &yaml::document(pod)).as_bytes(), out)
}

struct Console {
    out: Output,
    interrupted: Arc<AtomicBool>,
}

impl Watcher for Console {
    fn say(&self, words: &str) {
        self.out.say(words);
    }

    fn log(&self, line: &str) {
        self.out.say(format_args!("| {line}"));
    }

    fn interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }
}

/// A flag that Ctrl-C, a termination or a lost terminal raises, so that the pod is deleted; the second one does not wait for that.
fn interruption(out: &Output) -> Arc<AtomicBool> {
    let flag = Arc::new(AtomicBool::new(false));
    let (raised, out) = (flag.clone(), out.clone());
    std::thread::spawn(move || {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
        let signals = async {
            use tokio::signal::unix::{SignalKind, signal};
            let (Ok(mut interrupt), Ok(mut terminate)) =
                (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
            else {
                return;
            };
            // Under nohup a lost terminal is to be ignored.
            let mut hangup = if ignores_hangup() { None } else { signal(SignalKind::hangup()).ok() };
            for _ in 0..2 {
                let hung_up = async {
                    match &mut hangup {
                        Some(hangup) => hangup.recv().await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {}, _ = hung_up => {} }
                if raised.swap(true, Ordering::Relaxed) {
                    out.failure(&Failure::new(130, "interrupted twice: the pod may be left"));
                    #[expect(clippy::exit, reason = "the user does not want to wait for what would be put in order")]
                    std::process::exit(130);
                }
                out.say("interrupted: deleting the pod; once more to leave at once");
            }
        };
        runtime.block_on(signals);
    });
    flag
}

/// Whether this process was started with SIGHUP ignored (proc(5): a mask of signals, the first is bit 0).
fn ignores_hangup() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|l| u64::from_str_radix(l.strip_prefix("SigIgn:")?.trim(), 16).ok());
    mask.is_some_and(|m| m & 1 << (libc::SIGHUP - 1) != 0)
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::super::super::Cli;
    use super::*;

    #[derive(Parser)]
    struct Given {
        #[command(flatten)]
        recorder: Recorder,
    }

    #[test]
    fn what_the_pod_is_told_is_what_run_takes() {
        let image: Reference = "h.io/a:t".parse().expect("a reference");
        for given in [
            &["--until-log=-x$", "--until-http=http://127.0.0.1:1/", "--until-chat=http://127.0.0.1:1/", "--grace=5"][..],
            &["--for=2.5"],
            &["--for=5000.5", "--timeout=10"],
            &["--recorder=page-cache"],
            &["--recorder=auto"],
        ] {
            let words = ["x"].iter().chain(given);
            let Given { recorder } = Given::try_parse_from(words).unwrap_or_else(|e| panic!("{e}"));
            let arguments = recorder.arguments(&image);
            let own = ["esgz", "profile", "run", "-o", "p"].map(String::from).into_iter();
            let all = own.chain(arguments.clone()).chain(["--", "serve"].map(String::from));
            let matches = Cli::command().try_get_matches_from(all).unwrap_or_else(|e| panic!("{e}"));
            assert!(matches.subcommand_matches("profile").is_some());
            for option in given.iter().filter(|o| !o.starts_with("--timeout")) {
                assert!(arguments.iter().any(|a| a == option), "{arguments:?}: no {option}");
            }
            assert!(recorder.limit() >= recorder.period.unwrap_or_default().as_secs());
        }
        for wrong in ["--for=864001", "--for=NaN", "--recorder=tape", "--until-log=(", "--grace=86401"] {
            assert!(Given::try_parse_from(["x", wrong]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_patch_does_not_move_the_pod() {
        let spec = Spec { name: "p".into(), namespace: Some("n".into()), ..Spec::default() };
        let check = |patch: &str| check_patch(&spec, &serde_json::from_str(patch).expect("JSON")).map_err(|e| e.code);
        for wrong in [
            r#"{"metadata": {"namespace": "m"}}"#,
            r#"{"metadata": {"namespace": null}}"#,
            r#"{"metadata": {"name": "q"}}"#,
            r#"{"metadata": null}"#,
            r#"{"kind": "Job"}"#,
        ] {
            assert_eq!(check(wrong), Err(2), "{wrong}");
        }
        assert_eq!(check(r#"{"metadata": {"namespace": "n", "labels": {"a": "b"}}, "spec": {"priority": 1}}"#), Ok(()));
    }

    #[test]
    fn values_are_pairs() {
        let two = |a: &str, b: &str| Ok((a.to_owned(), b.to_owned()));
        assert_eq!(pair("A=b=c"), two("A", "b=c"));
        assert_eq!(pair("A="), two("A", ""));
        assert_eq!(claim("models:/m:x"), two("models", "/m:x"));
        assert_eq!(amount("4:8"), Ok(Amount { request: "4".into(), limit: Some("8".into()) }));
        assert!(
            pair("=x").is_err()
                && pair("x").is_err()
                && claim("a:b").is_err()
                && amount(":1").is_err()
                && amount("1:").is_err()
        );
    }
}
