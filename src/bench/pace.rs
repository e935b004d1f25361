//! How fast the machine's CPUs are right now: on a shared machine that changes from hour to hour, and with it everything that a
//! benchmark measures. A short piece of the work that pulling and serving is made of, on all CPUs at once, measured before a run.

use std::hint::black_box;
use std::io::{Read, Write};
use std::thread;
use std::time::Duration;

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use nix::time::{ClockId, clock_gettime};

use super::observe;
use crate::digest::Digest;

/// Decompressed bytes of the sample.
const SAMPLE: usize = 4 << 20;
/// How often each CPU goes through it: most of a second, since a moment says little of a shared machine.
const PASSES: u32 = 64;

/// What the machine is like before a run.
pub(super) struct Condition {
    /// Load average of the last minute.
    pub(super) load: String,
    /// MB (10^6 bytes) that each CPU inflates and hashes in a second of its time.
    pub(super) cpu_mb: Option<u64>,
}

impl Condition {
    /// Takes most of a second of all CPUs.
    pub(super) fn now() -> Self {
        // The load first: it would show the measurement.
        let load = observe::load();
        let cpus = thread::available_parallelism().map_or(1, usize::from);
        Self { load, cpu_mb: Some(measure(cpus, PASSES)).filter(|mb| *mb > 0) }
    }

    /// Of a run that came to nothing.
    pub(super) fn unmeasured() -> Self {
        Self { load: observe::load(), cpu_mb: None }
    }
}

/// MB (10^6 bytes, decompressed) that each of so many CPUs inflates and hashes in a second of its own time while the others do the
/// same; 0 where it cannot be said.
fn measure(cpus: usize, passes: u32) -> u64 {
    let packed = packed();
    let went = thread::scope(|scope| {
        let threads: Vec<_> = (0..cpus.max(1)).map(|_| scope.spawn(|| one(&packed, passes))).collect();
        threads.into_iter().map(|t| t.join().ok().flatten()).collect::<Option<Vec<Duration>>>()
    });
    let went = went.unwrap_or_default();
    let bytes = SAMPLE as u128 * u128::from(passes) * went.len() as u128;
    // Bytes a microsecond are MB a second.
    bytes.checked_div(went.iter().sum::<Duration>().as_micros()).and_then(|mb| u64::try_from(mb).ok()).unwrap_or(0)
}

fn one(packed: &[u8], passes: u32) -> Option<Duration> {
    let mut plain = Vec::with_capacity(SAMPLE);
    let began = used()?;
    for _ in 0..passes {
        plain.clear();
        GzDecoder::new(packed).read_to_end(&mut plain).ok()?;
        black_box(Digest::of(&plain));
    }
    used()?.checked_sub(began)
}

/// This thread's CPU time: what else runs, such as the tidying up behind the run before, takes turns with it and is not counted.
fn used() -> Option<Duration> {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).ok().map(Duration::from)
}

/// Bytes that compress about as well as programs do, the same every time.
fn packed() -> Vec<u8> {
    let mut plain = Vec::with_capacity(SAMPLE);
    let mut state = 1u32;
    while plain.len() < SAMPLE {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let [.., a, b] = state.to_be_bytes().map(|b| b & 31);
        plain.extend_from_slice(&[a, b, a ^ 7, 0, a]);
    }
    plain.truncate(SAMPLE);
    let mut out = GzEncoder::new(Vec::new(), Compression::fast());
    // Into memory: neither fails.
    let _written = out.write_all(&plain);
    out.finish().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sample_is_real_work() {
        let packed = packed();
        let mut plain = Vec::new();
        GzDecoder::new(&packed[..]).read_to_end(&mut plain).expect("gzip");
        assert_eq!(plain.len(), SAMPLE);
        assert!((SAMPLE / 10..SAMPLE).contains(&packed.len()), "{}", packed.len());
        // No CPU inflates a TB a second, none but a broken one less than a MB.
        assert!((1..1_000_000).contains(&measure(2, 2)));
    }
}
