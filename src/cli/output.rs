//! The only place that writes to stdout and stderr.

use std::fmt::{self, Display, Write as _};
use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::Failure;
use crate::progress::Progress;

/// Prints for one command.
#[derive(Clone)]
pub struct Output {
    quiet: bool,
    bars: Option<MultiProgress>,
}

impl Output {
    /// Bars on a terminal, plain lines elsewhere, nothing but errors with `quiet`.
    pub fn new(quiet: bool) -> Self {
        let bars = (!quiet && std::io::stderr().is_terminal()).then(MultiProgress::new);
        Self { quiet, bars }
    }

    /// Data, to stdout, without control characters of others. A closed pipe is the reader's choice, not an error.
    pub fn data(&self, text: impl Display) {
        let mut out = std::io::stdout().lock();
        let _closed = writeln!(out, "{}", Printable(&text));
    }

    /// Bytes as they are, to stdout. A full disk is an error, a closed pipe is none.
    pub fn bytes(&self, bytes: &[u8]) -> std::io::Result<()> {
        let mut out = std::io::stdout().lock();
        match out.write_all(bytes).and_then(|()| out.flush()) {
            Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(e),
            _ => Ok(()),
        }
    }

    /// Data as indented JSON, to stdout.
    pub fn json(&self, value: &impl serde::Serialize) {
        match serde_json::to_string_pretty(value) {
            // What serde_json leaves as it is, JSON can spell otherwise.
            Ok(text) => self.data(escaped(&text)),
            Err(e) => self.line(&format_args!("esgz: cannot write JSON: {e}")),
        }
    }

    /// Words, to stderr.
    pub fn say(&self, text: impl Display) {
        if !self.quiet {
            self.line(&text);
        }
    }

    fn line(&self, text: &dyn Display) {
        let text = Printable(text);
        // A terminal that is gone is no reason to leave undone what is being done.
        let print = || {
            let _closed = writeln!(std::io::stderr().lock(), "{text}");
        };
        match &self.bars {
            Some(bars) => bars.suspend(print),
            None => print(),
        }
    }

    /// An error chain and its hint, to stderr.
    pub fn failure(&self, failure: &Failure) {
        self.line(&format_args!("esgz: {}", super::chain(&*failure.error)));
        if let Some(hint) = &failure.hint {
            self.line(&format_args!("hint: {hint}"));
        }
    }

    /// A progress sink.
    pub fn progress(&self) -> Arc<dyn Progress> {
        Arc::new(Tasks { out: self.clone(), next: AtomicU64::new(1), open: Mutex::default() })
    }
}

/// A text without control characters but line breaks and tabs: paths, notes and log lines come from images and registries, and a
/// terminal would obey them.
struct Printable<T>(T);

impl<T: Display> Display for Printable<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Replacing(f), "{}", self.0)
    }
}

struct Replacing<'a, 'b>(&'a mut fmt::Formatter<'b>);

impl fmt::Write for Replacing<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for piece in text.split_inclusive(is_obeyed) {
            let kept = piece.trim_end_matches(is_obeyed);
            self.0.write_str(kept)?;
            if kept.len() < piece.len() {
                self.0.write_char(char::REPLACEMENT_CHARACTER)?;
            }
        }
        Ok(())
    }
}

fn is_obeyed(c: char) -> bool {
    c.is_control() && !matches!(c, '\n' | '\t')
}

/// JSON with the control characters spelt as escapes.
fn escaped(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if is_obeyed(c) {
            let _infallible = write!(out, "\\u{:04x}", u32::from(c));
        } else {
            out.push(c);
        }
    }
    out
}

struct Tasks {
    out: Output,
    next: AtomicU64,
    open: Mutex<Vec<Task>>,
}

struct Task {
    id: u64,
    name: String,
    total: u64,
    at: u64,
    bar: Option<ProgressBar>,
    started: Instant,
    said: Instant,
}

/// In CI a line a task every so often tells that it is alive without filling the log.
const LINE_EVERY: Duration = Duration::from_secs(10);

impl Tasks {
    fn with(&self, id: u64, f: impl FnOnce(&mut Vec<Task>, usize)) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(i) = open.iter().position(|t| t.id == id) {
            f(&mut open, i);
        }
    }
}

/// `578.1 MB`.
pub(super) fn megabytes(bytes: u64) -> String {
    format!("{}.{} MB", bytes / 1_000_000, bytes / 100_000 % 10)
}

/// `52,031`.
pub(super) fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

impl Progress for Tasks {
    fn start(&self, name: &str, total: u64) -> u64 {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let bar = self.out.bars.as_ref().map(|bars| {
            let bar = bars.add(ProgressBar::new(total));
            let style = ProgressStyle::with_template(
                "{msg:32!} {bar:24} {bytes:>10}/{total_bytes:<10} {binary_bytes_per_sec:>12}",
            );
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.set_message(name.to_owned());
            bar
        });
        let now = Instant::now();
        self.open.lock().unwrap_or_else(PoisonError::into_inner).push(Task {
            id,
            name: name.into(),
            total,
            at: 0,
            bar,
            started: now,
            said: now,
        });
        id
    }

    fn advance(&self, task: u64, delta: u64) {
        self.with(task, |open, i| {
            let t = &mut open[i];
            t.at += delta;
            match &t.bar {
                Some(bar) => bar.inc(delta),
                None if t.said.elapsed() >= LINE_EVERY => {
                    t.said = Instant::now();
                    self.out.say(format_args!("{}: {} of {}", t.name, megabytes(t.at), megabytes(t.total)));
                }
                None => {}
            }
        });
    }

    fn done(&self, task: u64) {
        self.with(task, |open, i| {
            let t = open.remove(i);
            match t.bar {
                Some(bar) => bar.finish_and_clear(),
                None => self.out.say(format_args!(
                    "{}: {} in {:.1} s",
                    t.name,
                    megabytes(t.at),
                    t.started.elapsed().as_secs_f64()
                )),
            }
        });
    }

    fn warn(&self, message: &str) {
        self.out.say(format_args!("warning: {message}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_is_told_nothing_by_what_is_printed() {
        let hostile = "a\u{1b}]0;x\u{7}\u{9b}2J\r\tb\nü";
        assert_eq!(Printable(hostile).to_string(), "a\u{fffd}]0;x\u{fffd}\u{fffd}2J\u{fffd}\tb\nü");
        let json = serde_json::to_string_pretty(&[hostile]).expect("JSON");
        let text = escaped(&json);
        assert!(!text.contains(is_obeyed) && text.contains("\\u009b2J"), "{text}");
        assert_eq!(serde_json::from_str::<Vec<String>>(&text).expect("still JSON"), [hostile]);
    }

    #[test]
    fn numbers_are_grouped_by_thousands() {
        assert_eq!([0, 999, 1000, 52_031, 1_000_000].map(grouped), ["0", "999", "1,000", "52,031", "1,000,000"]);
    }
}
