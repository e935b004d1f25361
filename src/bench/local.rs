//! The benchmark on one machine: rounds of runs, each from a wiped stack, through the link, judged by the evidence.
//!
//! [`Bench`] keeps the report while it grows, so that whoever drops [`Bench::run`] half way (Ctrl-C) still has what was
//! measured, and calls [`Bench::clean_up`]. What happens within one run is in `measure`.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use super::cri::{self, Cri};
use super::forecast::Forecast;
use super::link::{Link, Preset, Shape};
use super::measure::{Part, Rig};
use super::observe;
use super::order::order;
use super::pace::Condition;
use super::result::{LinkShape, Outcome, Report, Run, SCHEMA, Start, Workload, cross_check};
use super::stack::{Env, Stack};
use super::trace::Source;
use super::{Error, Options, arm, inject, probe};
use crate::http::Client;
use crate::record::Onlooker;

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
    /// What is predicted, if it was asked for.
    forecast: Option<Forecast>,
    /// Each arm's own command; empty where nothing is put before it.
    commands: Vec<Vec<String>>,
    /// Where the reader of each arm has its list from, if it reads ahead of lazy layers.
    lists: Vec<Option<Source>>,
    /// The program that reads ahead.
    binary: PathBuf,
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
        let binary = match &options.warm_binary {
            Some(file) => file.clone(),
            None => std::env::current_exe().map_err(Error::io("finding this program"))?,
        };
        for arm in &options.arms {
            if let Some(profile) = arm.injected() {
                inject::must_be_static(&binary)?;
                fs::File::open(profile).map_err(Error::io(format!("opening {}", profile.display())))?;
            }
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
                connection_mb: options.connection_mb,
                preset: options.preset.map(Preset::name).map(Into::into),
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
            seed: options.seed,
            anchor: None,
            arms: Vec::new(),
            runs: Vec::new(),
            traced: Vec::new(),
            untraced: None,
        };
        let wrong = |e: crate::plan::ModelError| Error::Options(format!("nothing can be predicted: {e}"));
        let forecast = options.predict.as_ref().map(|p| Forecast::new(p, &report.link, report.machine.cpus));
        let forecast = forecast.transpose().map_err(wrong)?;
        let stack = Stack::new(&options.stack, options.timeout);
        let client = Client::new()?;
        let (commands, lists) = (Vec::new(), Vec::new());
        Ok(Self {
            options,
            stack,
            report,
            env: None,
            forecast,
            commands,
            lists,
            binary,
            client,
            folder,
            private,
            watch,
        })
    }

    /// What was measured so far.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// Runs all rounds. An error is one that ends the benchmark; runs that failed and were passed over are in the report.
    pub async fn run(&mut self) -> Result<(), Error> {
        let link = self.prepare().await?;
        for round in 1..=self.options.rounds {
            for index in order(self.options.arms.len(), round, self.options.seed) {
                for start in self.options.arms[index].starts() {
                    let (run, failed) = self.one(index, *start, round, &link).await;
                    self.enter(run);
                    match failed {
                        Some(error) if !self.options.keep_going => return Err(error),
                        // Without its cold run there is no image on disk for the warm one.
                        Some(_) => break,
                        None => {}
                    }
                }
            }
        }
        if self.options.trace && self.report.untraced.is_none() {
            self.trace(&link).await;
        }
        self.report.complete = true;
        Ok(())
    }

    /// One more run of each arm that reads ahead of lazy layers, with the recorder on. One that fails is shown and takes nothing from
    /// the rounds.
    async fn trace(&mut self, link: &Link) {
        for index in 0..self.options.arms.len() {
            if self.lists[index].is_none() {
                continue;
            }
            for start in self.options.arms[index].starts() {
                let (run, _shown) = self.one(index, *start, 0, link).await;
                self.enter(run);
            }
        }
    }

    /// Enters a run into the report.
    fn enter(&mut self, run: Run) {
        let report = &mut self.report;
        report.finished = now();
        let list = if run.traced { &mut report.traced } else { &mut report.runs };
        let folder = self.folder.join(folder_of(&run.row, run.round));
        list.push(run);
        cross_check(&mut report.runs, &mut report.traced, arm::ORIGINAL);
        if let Some(forecast) = &self.forecast {
            forecast.enter(report);
        }
        let list = if report.traced.is_empty() { &report.runs } else { &report.traced };
        if let Some(run) = list.last() {
            let text = serde_json::to_string_pretty(run).unwrap_or_default();
            let _copy = fs::write(folder.join("run.json"), text);
            (self.watch)(report, Event::Run(run));
        }
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
        let first = &self.options.arms[0];
        self.stack.reset(&first.snapshotter, first.mode()).await?;
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
            if let Some(forecast) = &mut self.forecast {
                forecast.add(arm, &image.manifest);
            }
            self.lists.push(Source::of(arm, &image));
            self.commands.push(match arm.injected() {
                Some(_) => inject::command(&image.config.raw, &self.options.args, &arm.image.to_string())?,
                None => Vec::new(),
            });
        }
        if self.options.trace {
            self.report.untraced = if self.lists.iter().all(Option::is_none) {
                Some("no arm reads ahead of lazy layers".into())
            } else {
                // It has to be known before hours of rounds.
                Onlooker::start().err().map(|e| Error::Trace(e).chain())
            };
            if let Some(why) = &self.report.untraced {
                (self.watch)(&self.report, Event::Step(format!("no run will be traced: {why}")));
            }
        }
        let shape = Shape {
            latency: self.options.latency,
            bytes_per_second: self.options.bandwidth_mb.saturating_mul(1_000_000),
            connection_bytes_per_second: self.options.connection_mb.saturating_mul(1_000_000),
        };
        let listening = Error::io(format!("listening on {}", self.options.listen));
        let link = Link::start(&self.options.listen, &env.registry, shape).await.map_err(listening)?;
        self.report.link.listen = link.address().to_string();
        self.report.link.upstream = env.registry;
        Ok(link)
    }

    /// One run, whatever comes of it, with the error of one that failed. Behind the rounds, as round 0, it is traced.
    async fn one(&self, index: usize, start: Start, round: u32, link: &Link) -> (Run, Option<Error>) {
        let arm = &self.options.arms[index];
        let row = arm.row(start);
        let traced = self.lists[index].as_ref().filter(|_| round == 0);
        let step = match traced {
            Some(_) => format!("traced, not counted: {row}"),
            None => format!("round {round} of {}: {row}", self.options.rounds),
        };
        (self.watch)(&self.report, Event::Step(step));
        let folder = self.folder.join(folder_of(&row, round));
        let started = now();
        let rig = Rig {
            options: &self.options,
            stack: &self.stack,
            client: &self.client,
            link,
            private: self.private.path(),
            binary: &self.binary,
        };
        let part = Part { arm, facts: &self.report.arms[index], command: &self.commands[index], start, traced };
        let measured = rig.measure(part, &folder).await;
        if let Some(env) = &self.env
            && let Err(e) = Cri::new(env, self.options.timeout).clear().await
        {
            (self.watch)(&self.report, Event::Step(format!("removing the container: {}", e.chain())));
        }
        let (condition, outcome, failed) = match measured {
            Ok((condition, measured)) => (condition, Outcome::Measured(Box::new(measured)), None),
            Err(e) => {
                let outcome = Outcome::Failed { error: e.chain(), log: cri::tail(&folder, TAIL) };
                (Condition::unmeasured(), outcome, Some(e))
            }
        };
        let valid = matches!(&outcome, Outcome::Measured(m) if m.invalid.is_empty());
        let Condition { load, cpu_mb } = condition;
        let (arm, traced) = (arm.name.clone(), traced.is_some());
        let run = Run { row, arm, start, round, started, load, cpu_mb, valid, traced, outcome };
        (run, failed)
    }
}

/// Folder of a run's evidence.
fn folder_of(row: &str, round: u32) -> String {
    let row = row.replace(' ', "-");
    if round == 0 { format!("traced-{row}") } else { format!("round{round}-{row}") }
}

fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
