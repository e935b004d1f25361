//! The benchmark on one machine: rounds of runs, each from a wiped stack, through the link, judged by the evidence.
//!
//! [`Bench`] keeps the report while it grows, so that whoever drops [`Bench::run`] half way (Ctrl-C) still has what was
//! measured, and calls [`Bench::clean_up`]. Hidden here: the order of things in a run. Whatever costs time and is not part
//! of a start (looking at the registry, at mounts and logs) happens before the first mark or after the last; at the
//! marks between, only `/proc` is read.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use super::cri::{self, Container, Cri};
use super::evidence::{self, After, Before, Evidence};
use super::link::{Link, Shape};
use super::marks::{Mark, over, phases};
use super::observe::{self, POLL};
use super::result::{ArmFacts, LinkShape, Measured, Outcome, Report, Run, SCHEMA, Split, Start, Workload, cross_check};
use super::stack::{Env, Stack};
use super::{Arm, Error, Options, arm, probe};
use crate::http::Client;

/// Lines of a failed container's log that are kept.
const TAIL: usize = 20;

/// What happened, for whoever watches.
#[derive(Debug)]
pub enum Event<'a> {
    /// Something begins.
    Step(String),
    /// A run is over.
    Run(&'a Run),
}

/// A benchmark and its report so far.
pub struct Bench<'w> {
    options: Options,
    stack: Stack,
    report: Report,
    env: Option<Env>,
    client: Client,
    folder: PathBuf,
    /// For the requests to the runtime: they hold the values of the environment, which are kept nowhere.
    private: tempfile::TempDir,
    watch: &'w (dyn Fn(&Report, Event<'_>) + Sync),
}

impl<'w> Bench<'w> {
    /// Prepares; nothing runs yet.
    pub fn new(options: Options, watch: &'w (dyn Fn(&Report, Event<'_>) + Sync)) -> Result<Self, Error> {
        for (i, arm) in options.arms.iter().enumerate() {
            if options.arms[..i].iter().any(|a| a.name == arm.name) {
                return Err(Error::Options(format!("two arms are called {:?}", arm.name)));
            }
        }
        if options.arms.is_empty() || options.rounds == 0 {
            return Err(Error::Options("nothing to run: expected at least one arm and one round".into()));
        }
        let private =
            tempfile::Builder::new().prefix("esgz-bench-").tempdir().map_err(Error::io("making a temporary folder"))?;
        let folder = match &options.evidence {
            Some(folder) => {
                if fs::read_dir(folder).is_ok_and(|mut d| d.next().is_some()) {
                    return Err(Error::Options(format!("the evidence folder {} is not empty", folder.display())));
                }
                std::path::absolute(folder).map_err(Error::io("finding the evidence folder"))?
            }
            None => private.path().join("evidence"),
        };
        let report = Report {
            schema: SCHEMA.into(),
            esgz: env!("CARGO_PKG_VERSION").into(),
            started: now(),
            finished: now(),
            complete: false,
            machine: observe::machine(),
            versions: std::collections::BTreeMap::new(),
            link: LinkShape {
                latency_ms: u64::try_from(options.latency.as_millis()).unwrap_or(u64::MAX),
                bandwidth_mb: options.bandwidth_mb,
                listen: options.listen.clone(),
                upstream: String::new(),
            },
            workload: Workload {
                port: options.port,
                prompt: probe::PROMPT.into(),
                max_tokens: probe::MAX_TOKENS,
                env: options.env.iter().map(|(k, _)| k.clone()).collect(),
                args: options.args.clone(),
            },
            rounds: options.rounds,
            arms: Vec::new(),
            runs: Vec::new(),
        };
        let stack = Stack::new(&options.stack, options.timeout);
        Ok(Self { options, stack, report, env: None, client: Client::new()?, folder, private, watch })
    }

    /// What was measured so far.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// Runs all rounds. An error is one that ends the benchmark; runs that failed and were passed over are in the report.
    pub async fn run(&mut self) -> Result<(), Error> {
        let link = self.prepare().await?;
        for round in 1..=self.options.rounds {
            for index in arm::order(self.options.arms.len(), round) {
                let arm = self.options.arms[index].clone();
                let facts = self.report.arms[index].clone();
                for start in arm.starts() {
                    let failed = self.one(&arm, &facts, *start, round, &link).await;
                    self.report.finished = now();
                    if let Some(run) = self.report.runs.last() {
                        (self.watch)(&self.report, Event::Run(run));
                    }
                    match failed {
                        Some(error) if !self.options.keep_going => return Err(error),
                        // Without its cold run there is no image on disk for the warm one.
                        Some(_) => break,
                        None => {}
                    }
                }
            }
        }
        self.report.complete = true;
        Ok(())
    }

    /// Stops the containers and the stack, but for the registry.
    pub async fn clean_up(&self) -> Result<(), Error> {
        if let Some(env) = &self.env {
            // A runtime that is down has no containers; the stack's own word counts.
            let _gone = Cri::new(env, self.options.timeout.min(Duration::from_mins(1))).clear().await;
        }
        self.stack.down().await
    }

    /// Everything that can fail before the first run: the stack, the images, the link.
    async fn prepare(&mut self) -> Result<Link, Error> {
        (self.watch)(&self.report, Event::Step("starting the stack".into()));
        self.stack.reset(&self.options.arms[0].snapshotter).await?;
        let env = self.stack.env().await?;
        self.env = Some(env.clone());
        let (name, version) = Cri::new(&env, self.options.timeout).version().await?;
        self.report.versions.clone_from(&env.versions);
        self.report.versions.insert(name, version);
        for arm in &self.options.arms {
            if arm.image.host != env.registry {
                return Err(Error::Options(format!("{} is not in the stack's registry {}", arm.image, env.registry)));
            }
            let image = probe::image(&arm.image).await?;
            self.report.arms.push(arm.facts(&image));
        }
        let shape = Shape {
            latency: self.options.latency,
            bytes_per_second: self.options.bandwidth_mb.saturating_mul(1_000_000),
        };
        let listening = Error::io(format!("listening on {}", self.options.listen));
        let link = Link::start(&self.options.listen, &env.registry, shape).await.map_err(listening)?;
        self.report.link.listen = link.address().to_string();
        self.report.link.upstream = env.registry;
        Ok(link)
    }

    /// One run, entered into the report whatever comes of it. Gives the error of a run that failed.
    async fn one(&mut self, arm: &Arm, facts: &ArmFacts, start: Start, round: u32, link: &Link) -> Option<Error> {
        let row = arm.row(start);
        (self.watch)(&self.report, Event::Step(format!("round {round} of {}: {row}", self.options.rounds)));
        let folder = self.folder.join(format!("round{round}-{}", row.replace(' ', "-")));
        let started = now();
        let measured = self.measure(arm, facts, start, link, &folder).await;
        if let Some(env) = &self.env
            && let Err(e) = Cri::new(env, self.options.timeout).clear().await
        {
            (self.watch)(&self.report, Event::Step(format!("removing the container: {}", e.chain())));
        }
        let (load, outcome, failed) = match measured {
            Ok((load, measured)) => (load, Outcome::Measured(Box::new(measured)), None),
            Err(e) => {
                let outcome = Outcome::Failed { error: e.chain(), log: cri::tail(&folder, TAIL) };
                (observe::load(), outcome, Some(e))
            }
        };
        let valid = matches!(&outcome, Outcome::Measured(m) if m.invalid.is_empty());
        self.report.runs.push(Run { row, valid, arm: arm.name.clone(), start, round, started, load, outcome });
        cross_check(&mut self.report.runs, arm::ORIGINAL);
        if let Some(run) = self.report.runs.last() {
            let text = serde_json::to_string_pretty(run).unwrap_or_default();
            let _copy = fs::write(folder.join("run.json"), text);
        }
        failed
    }

    async fn measure(
        &mut self,
        arm: &Arm,
        facts: &ArmFacts,
        start: Start,
        link: &Link,
        folder: &Path,
    ) -> Result<(String, Measured), Error> {
        fs::create_dir_all(folder).map_err(Error::io(format!("making {}", folder.display())))?;
        let limit = self.options.timeout;
        let page_cache_before_kb = observe::page_cache_kb()?;
        match start {
            Start::Cold => self.stack.reset(&arm.snapshotter).await?,
            Start::Warm => observe::drop_caches()?,
        }
        let page_cache_after_kb = observe::page_cache_kb()?;
        let load = observe::load();
        let env = self.stack.env().await?;
        self.env = Some(env.clone());
        let cri = Cri::new(&env, limit);
        let address = format!("127.0.0.1:{}", self.options.port);
        if probe::listens(&address).await {
            return Err(Error::Unexpected {
                what: address,
                why: "something listens there before the container starts".into(),
            });
        }
        let layers = || facts.layers.iter().map(|l| l.digest);
        let before = Before {
            snapshotter: env.snapshotter.clone(),
            images: cri.images().await?.into_iter().map(|i| i.name).collect(),
            blobs: observe::stored(&env.content_store, layers()),
            mounts: observe::lazy_mounts(&env.stargz_root)?,
            cache_files: observe::cache_files(&env.stargz_root),
            page_cache_before_kb,
            page_cache_after_kb,
        };
        let log_from = observe::log_length(&env.stargz_log);
        let mut image = arm.image.clone();
        image.host = link.address().to_string();
        let image = image.to_string();

        let mark =
            |at: Instant, process: Option<u32>| Mark { at, link: link.traffic(), cpu: observe::cpu(&env, process) };
        // The clock starts after this sample was taken, and after that every sample is within the time.
        let mut first = mark(Instant::now(), None);
        first.at = Instant::now();
        if start == Start::Cold {
            cri.pull(&image).await?;
        }
        let pulled = mark(Instant::now(), None);
        let container = cri.start(&image, &self.options.env, &self.options.args, self.private.path(), folder).await?;
        let created = Instant::now();
        let (process, ready) = wait(&cri, &self.client, &container, &address, limit).await?;
        let ready = mark(ready, Some(process));
        let asked = tokio::time::timeout(limit, probe::chat(&self.client, &address, limit)).await;
        let answered = mark(Instant::now(), Some(process));
        let answer = match asked {
            Ok(Ok(text)) => text,
            Ok(Err(e)) => return Err(Error::Unexpected { what: "the chat".into(), why: e.to_string() }),
            Err(_) => return Err(Error::Timeout { what: "the chat answer".into(), seconds: limit.as_secs() }),
        };
        if !observe::alive(process) {
            return Err(Error::Ended(cri.ended(&container).await?));
        }

        let log = if arm.snapshotter == evidence::LAZY {
            observe::log_since(&env.stargz_log, log_from)?
        } else {
            String::new()
        };
        let _copy = fs::write(folder.join("stargz.log"), &log);
        let _copy = fs::copy("/proc/self/mountinfo", folder.join("mountinfo"));
        let after = After {
            image_listed: cri.images().await?.iter().any(|i| i.id == Some(facts.config)),
            blobs: observe::stored(&env.content_store, layers()),
            mounts: observe::lazy_mounts(&env.stargz_root)?,
            log: observe::prepared(&log),
        };
        let evidence = Evidence { before, after };
        let traffic =
            Split { pull: over(&first, &pulled), start: over(&pulled, &ready), chat: over(&ready, &answered) };
        let verdict = evidence::judge(facts, start, &evidence, &traffic);
        let cpu = Split {
            pull: observe::used(first.cpu, pulled.cpu),
            start: observe::used(pulled.cpu, ready.cpu),
            chat: observe::used(ready.cpu, answered.cpu),
        };
        let measured = Measured {
            phases: phases(start, [first.at, pulled.at, created, ready.at, answered.at]),
            link: traffic,
            cpu,
            answer,
            lazy_layers: verdict.lazy_layers,
            layers: facts.layers.len(),
            invalid: verdict.invalid,
            evidence,
            timeline: Vec::new(),
            samples: Vec::new(),
            metrics: std::collections::BTreeMap::new(),
            warm: None,
        };
        Ok((load, measured))
    }
}

/// Until the workload is ready: its process and the moment. The runtime is asked for the process while the workload is polled already.
async fn wait(
    cri: &Cri,
    client: &Client,
    container: &Container,
    address: &str,
    limit: Duration,
) -> Result<(u32, Instant), Error> {
    let process = OnceLock::new();
    let find = async {
        let pid = cri.process(container).await?;
        Ok::<_, Error>(*process.get_or_init(|| pid))
    };
    let poll = async {
        loop {
            if probe::healthy(client, address).await {
                return Ok(Instant::now());
            }
            if process.get().is_some_and(|pid| !observe::alive(*pid)) {
                return Err(Error::Ended(cri.ended(container).await?));
            }
            tokio::time::sleep(POLL).await;
        }
    };
    match tokio::time::timeout(limit, async { tokio::try_join!(find, poll) }).await {
        Ok(done) => done,
        Err(_) => Err(Error::Timeout { what: "getting ready".into(), seconds: limit.as_secs() }),
    }
}

fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
