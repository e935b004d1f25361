//! One run, from the state it starts from to its evidence. Hidden here: the order of things. Whatever costs time and is not part
//! of a start (looking at the registry, at mounts, logs and counters) happens before the first mark or after the last; between
//! them `/proc` is read at the marks and for the samples.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::cri::{self, Container, Cri, Request};
use super::evidence::{self, After, Before, Evidence};
use super::inject::Injection;
use super::link::Link;
use super::marks::{Mark, over, phases};
use super::observe::{self, POLL, Who};
use super::option::ArmOption;
use super::pace::Condition;
use super::reader::Reader;
use super::residency::{self, Residency};
use super::result::{ArmFacts, Measured, Split, Start};
use super::sampler::Sampler;
use super::stack::{Env, Stack};
use super::timeline::{self, Clock, Marks};
use super::trace::{Source, Stage, Trace};
use super::{Arm, Error, Options, metrics, probe, stats};
use crate::http::Client;
use crate::record::{Onlooked, Onlooker};

/// A link without a byte for that long is idle.
const IDLE: Duration = Duration::from_secs(1);
/// So long is waited for the read-ahead's report behind the answer.
const REPORT: Duration = Duration::from_secs(10);

/// What all runs share.
pub(super) struct Rig<'a> {
    pub(super) options: &'a Options,
    pub(super) stack: &'a Stack,
    pub(super) client: &'a Client,
    pub(super) link: &'a Link,
    /// For what is kept nowhere.
    pub(super) private: &'a Path,
    /// The program that reads ahead.
    pub(super) binary: &'a Path,
}

/// Which run.
#[derive(Clone, Copy)]
pub(super) struct Part<'a> {
    pub(super) arm: &'a Arm,
    pub(super) facts: &'a ArmFacts,
    /// The arm's own command, where something is put before it.
    pub(super) command: &'a [String],
    pub(super) start: Start,
    /// The recorder looks on: where the reader's list is.
    pub(super) traced: Option<&'a Source>,
}

impl Part<'_> {
    fn is_lazy(&self) -> bool {
        self.arm.snapshotter == evidence::LAZY
    }

    fn stored(&self, env: &Env) -> Vec<crate::digest::Digest> {
        observe::stored(&env.content_store, self.facts.layers.iter().map(|l| l.digest))
    }
}

/// The state that a run starts from.
struct Ground {
    env: Env,
    /// Where the snapshotter's log of this run begins.
    log_from: u64,
    page_cache_before_kb: u64,
    page_cache_after_kb: u64,
    residency: Option<Residency>,
}

impl Rig<'_> {
    /// Makes the run. Gives what the machine was like before it, too.
    pub(super) async fn measure(&self, part: Part<'_>, folder: &Path) -> Result<(Condition, Measured), Error> {
        fs::create_dir_all(folder).map_err(Error::io(format!("making {}", folder.display())))?;
        let (arm, facts, limit) = (part.arm, part.facts, self.options.timeout);
        let resolved = probe::image(&arm.image).await?.descriptor.digest;
        let mut image = arm.image.clone();
        image.host = self.link.address().to_string();
        let image = image.to_string();

        let Ground { env, log_from, page_cache_before_kb, page_cache_after_kb, residency } =
            self.prepare(part, &image).await?;
        let condition = Condition::now();
        let cri = Cri::new(&env, limit);
        let address = format!("127.0.0.1:{}", self.options.port);
        if probe::listens(&address).await {
            return Err(Error::Unexpected {
                what: address,
                why: "something listens there before the container starts".into(),
            });
        }
        // Before anything of the image is mounted, or right after the page cache was dropped.
        let onlooker = part.traced.map(|_| Onlooker::start()).transpose()?;
        let reader = arm.has(&ArmOption::Node).then(|| Reader::start(self.binary, &env, folder)).transpose()?;
        let injection = arm
            .injected()
            .map(|profile| Injection::new(self.binary, profile, self.private.join("warm-out"), part.command))
            .transpose()?;
        let listed = cri.images().await?;
        let before = Before {
            snapshotter: env.snapshotter.clone(),
            mode: env.mode.clone(),
            resolved: Some(resolved),
            image_listed: listed.iter().any(|i| i.id == Some(facts.config)),
            residency,
            images: listed.into_iter().map(|i| i.name).collect(),
            blobs: part.stored(&env),
            mounts: observe::lazy_mounts(&env.stargz_root)?.len(),
            cache_files: observe::cache_files(&env.stargz_root),
            page_cache_before_kb,
            page_cache_after_kb,
        };
        let page = if part.is_lazy() { env.metrics.as_str() } else { "" };
        let counted = metrics::read(self.client, page).await;

        let on_node = reader.as_ref().and_then(Reader::process);
        let who = Who::new(&env, on_node);
        let mark = |at: Instant, workload: Option<u32>| Mark {
            at,
            link: self.link.traffic(),
            cpu: observe::cpu(Who { workload, ..who }),
        };
        // The clock starts after this sample was taken, and after that every sample is within the time.
        let mut first = mark(Instant::now(), None);
        let clock = Clock::now();
        first.at = clock.steady();
        let sampler = Sampler::start(&first, who, self.link.meter());
        if part.start == Start::Cold {
            cri.pull(&image).await?;
        }
        let pulled = mark(Instant::now(), None);
        let request =
            Request { image: &image, env: &self.options.env, args: &self.options.args, injected: injection.as_ref() };
        let container = cri.start(request, self.private, folder).await?;
        let created = Instant::now();
        let (process, ready) = wait(&cri, self.client, &container, &address, limit, &sampler).await?;
        let ready = mark(ready, Some(process));
        let asked = tokio::time::timeout(limit, probe::chat(self.client, &address, limit)).await;
        let answered = mark(Instant::now(), Some(process));
        let samples = sampler.end();
        let onlooked = onlooker.map(Onlooker::stop);
        let answer = match asked {
            Ok(Ok(answer)) => answer,
            Ok(Err(e)) => return Err(Error::Unexpected { what: "the chat".into(), why: e.to_string() }),
            Err(_) => return Err(Error::Timeout { what: "the chat answer".into(), seconds: limit.as_secs() }),
        };
        if !observe::alive(process) {
            return Err(Error::Ended(cri.ended(&container).await?));
        }

        let marks = Marks {
            first: clock,
            pulled: (part.start == Start::Cold).then_some(pulled.at),
            created,
            ready: ready.at,
            first_token: answer.first,
            answer: answered.at,
            last: Clock::now(),
        };
        let grown = metrics::grown(&counted, &metrics::read(self.client, page).await);
        let warm = match (reader, &injection) {
            (Some(reader), _) => reader.end().await?,
            (None, Some(injection)) => report(injection).await,
            (None, None) => None,
        };
        let log = if part.is_lazy() { observe::log_since(&env.stargz_log, log_from)? } else { String::new() };
        let _copy = fs::write(folder.join("stargz.log"), &log);
        let _copy = fs::copy("/proc/self/mountinfo", folder.join("mountinfo"));
        let after = After {
            image_listed: cri.images().await?.iter().any(|i| i.id == Some(facts.config)),
            blobs: part.stored(&env),
            mounts: observe::lazy_mounts(&env.stargz_root)?.len(),
            log: observe::prepared(&log),
            reader: warm.is_some(),
        };
        let trace = match (part.traced, onlooked) {
            (Some(source), Some(onlooked)) => {
                let stage = Stage {
                    source: source.clone(),
                    mounts: observe::lazy_mounts(&env.stargz_root)?,
                    container: process,
                    reader: on_node,
                    reader_said: warm.as_ref().and_then(|w| stats::said(w, "bytes_read")),
                };
                Some(conclude(stage, onlooked).await?)
            }
            _ => None,
        };
        let evidence = Evidence { before, after };
        let traffic =
            Split { pull: over(&first, &pulled), start: over(&pulled, &ready), chat: over(&ready, &answered) };
        let verdict = evidence::judge(facts, part.start, &evidence, &traffic);
        let cpu = Split {
            pull: observe::used(first.cpu, pulled.cpu),
            start: observe::used(pulled.cpu, ready.cpu),
            chat: observe::used(ready.cpu, answered.cpu),
        };
        let measured = Measured {
            phases: phases(part.start, [first.at, pulled.at, created, ready.at, answered.at]),
            link: traffic,
            cpu,
            answer: answer.text,
            lazy_layers: verdict.lazy_layers,
            layers: facts.layers.len(),
            invalid: verdict.invalid,
            evidence,
            timeline: timeline::moments(&marks, &timeline::log(&cri::log(folder))),
            samples,
            metrics: grown,
            warm,
            trace,
        };
        Ok((condition, measured))
    }

    /// Brings about the state that the run starts from: nothing there, or the image on disk; in both cases nothing of it in memory.
    async fn prepare(&self, part: Part<'_>, image: &str) -> Result<Ground, Error> {
        let page_cache_before_kb = observe::page_cache_kb()?;
        let on_disk = part.arm.has(&ArmOption::Disk);
        if part.start == Start::Cold || on_disk {
            self.stack.reset(&part.arm.snapshotter, part.arm.mode()).await?;
        }
        if part.start == Start::Cold {
            let page_cache_after_kb = observe::page_cache_kb()?;
            let env = self.stack.env().await?;
            let log_from = observe::log_length(&env.stargz_log);
            return Ok(Ground { env, log_from, page_cache_before_kb, page_cache_after_kb, residency: None });
        }
        let env = self.stack.env().await?;
        let log_from = observe::log_length(&env.stargz_log);
        if on_disk {
            // No part of the run, and nothing of it is measured.
            let _opened = self.link.open();
            Cri::new(&env, self.options.timeout).pull(image).await?;
            // A prefetch goes on behind the pull.
            self.idle().await?;
        }
        let files = known_files(&env, part)?;
        observe::drop_caches()?;
        let page_cache_after_kb = observe::page_cache_kb()?;
        let residency = Some(residency::look(&files)?);
        // As before a cold run: the script's own pages are in memory again.
        let env = self.stack.env().await?;
        Ok(Ground { env, log_from, page_cache_before_kb, page_cache_after_kb, residency })
    }

    /// Until nothing goes over the link any more.
    async fn idle(&self) -> Result<(), Error> {
        let settled = async {
            loop {
                let before = self.link.traffic();
                tokio::time::sleep(IDLE).await;
                if self.link.traffic() == before {
                    return;
                }
            }
        };
        let late = |_| Error::Timeout {
            what: "the link getting idle behind the pull".into(),
            seconds: self.options.timeout.as_secs(),
        };
        tokio::time::timeout(self.options.timeout, settled).await.map_err(late)
    }
}

fn known_files(env: &Env, part: Part<'_>) -> Result<Vec<PathBuf>, Error> {
    let root = residency::root(env, &part.arm.snapshotter);
    residency::largest(&root).map_err(Error::io(format!("looking for the image's files in {}", root.display())))
}

/// Sorts out what the recorder saw, beside whatever else is to be done.
async fn conclude(stage: Stage, onlooked: Onlooked) -> Result<Trace, Error> {
    let done = tokio::task::spawn_blocking(move || stage.conclude(onlooked)).await;
    done.map_err(|e| Error::Unexpected { what: "sorting out the trace".into(), why: e.to_string() })
}

/// What a read-ahead in the container says of itself, which may come a little behind the answer.
async fn report(injection: &Injection) -> Option<Value> {
    let until = Instant::now() + REPORT;
    loop {
        let report = injection.report();
        if report.is_some() || Instant::now() > until {
            return report;
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Until the workload is ready: its process and the moment. The runtime is asked for the process while the workload is polled already.
async fn wait(
    cri: &Cri,
    client: &Client,
    container: &Container,
    address: &str,
    limit: Duration,
    sampler: &Sampler,
) -> Result<(u32, Instant), Error> {
    let process = OnceLock::new();
    let find = async {
        let pid = cri.process(container).await?;
        sampler.workload(pid);
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
