//! What each told call is about to do. Nothing here writes anything down: facts are only facts once the caller is known to wait
//! still.

use std::io;
use std::ops::Range;

use super::caller::{Caller, below, is_moot, stat_path};
use super::exec::executed;
use super::filter::SYS_RENAMEAT;
use super::listener::Call;
use super::mappings::{self, Known};
use super::notebook::{Fact, Stat};
use super::pages::may_map_files;
use crate::record::sightings::Key;
use crate::record::touch::{MMAP, OPEN, READ};

/// What the calls need to know besides themselves.
pub(super) trait Context: Known {
    /// Whether a path is known for that file.
    fn has_name(&self, key: Key) -> bool;
    /// Whether that thread was seen before.
    fn knows(&self, tid: u32) -> bool;
    /// The root of the container, as `/proc` shows it to us.
    fn base(&self) -> &[u8];
    /// Whether the process is our own program before its first exec, whose mappings are none of the command's.
    fn is_ours(&self, tid: u32) -> bool;
}

/// `struct iocb` of `linux/aio_abi.h`, and the two operations in it that read.
const IOCB: usize = 64;
const IOCB_CMD_PREAD: u16 = 0;
const IOCB_CMD_PREADV: u16 = 7;

/// An argument that is an `int`.
#[expect(clippy::cast_possible_truncation, reason = "the kernel takes the low half")]
fn int(argument: u64) -> i32 {
    argument as i32
}

/// Looks at a call.
pub(super) fn observe(call: &Call, context: &impl Context) -> Vec<Fact> {
    let caller = &Caller::new(call.tid);
    let mut facts = Vec::new();
    if !context.knows(call.tid)
        && let Ok(process) = caller.process()
    {
        facts.push(Fact::Alive { tid: call.tid, process });
    }
    if let Err(e) = look(call, caller, context, &mut facts)
        && !is_moot(&e)
    {
        facts.push(Fact::Missed);
    }
    facts
}

/// Files that the kernel makes up: they have sizes and positions, but are in no image.
fn is_made_up(path: &[u8]) -> bool {
    path.starts_with(b"/proc/") || path.starts_with(b"/sys/")
}

fn look(call: &Call, caller: &Caller, context: &impl Context, facts: &mut Vec<Fact>) -> io::Result<()> {
    let a = &call.args;
    let read = Reading { caller, context };
    let paths = Paths { caller, context };
    match call.nr {
        libc::SYS_read => read.here(int(a[0]), a[2], facts),
        libc::SYS_pread64 => read.at(int(a[0]), a[3], a[2], facts),
        libc::SYS_readv => read.here(int(a[0]), caller.wanted(a[1], a[2])?, facts),
        libc::SYS_preadv => read.at(int(a[0]), a[3], caller.wanted(a[1], a[2])?, facts),
        // Minus one: at the file's position.
        libc::SYS_preadv2 if a[3] == u64::MAX => read.here(int(a[0]), caller.wanted(a[1], a[2])?, facts),
        libc::SYS_preadv2 => read.at(int(a[0]), a[3], caller.wanted(a[1], a[2])?, facts),
        libc::SYS_sendfile => read.maybe_at(int(a[1]), a[2], a[3], facts),
        libc::SYS_splice => read.maybe_at(int(a[0]), a[1], a[4], facts),
        libc::SYS_copy_file_range => read.maybe_at(int(a[0]), a[1], a[4], facts),
        libc::SYS_io_submit => read.submitted(a[2], a[1], facts),
        libc::SYS_mmap => read.mapped(int(a[4]), int(a[3]), a[5], a[1], facts),

        libc::SYS_openat => paths.opened(int(a[0]), a[1], int(a[2]), facts),
        libc::SYS_openat2 => {
            let how = caller.number(a[2])?;
            paths.opened(int(a[0]), a[1], int(how), facts)
        }
        #[cfg(target_arch = "x86_64")]
        libc::SYS_open => paths.opened(libc::AT_FDCWD, a[0], int(a[1]), facts),
        #[cfg(target_arch = "x86_64")]
        libc::SYS_creat => paths.opened(libc::AT_FDCWD, a[0], libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC, facts),
        libc::SYS_newfstatat | libc::SYS_statx | libc::SYS_faccessat | libc::SYS_faccessat2 | libc::SYS_readlinkat => {
            paths.looked_up(int(a[0]), a[1], facts)
        }
        #[cfg(target_arch = "x86_64")]
        libc::SYS_stat | libc::SYS_lstat | libc::SYS_access | libc::SYS_readlink => {
            paths.looked_up(libc::AT_FDCWD, a[0], facts)
        }
        // Only told so that what this thread created is found before it gets another name.
        SYS_RENAMEAT | libc::SYS_renameat2 => Ok(()),
        #[cfg(target_arch = "x86_64")]
        libc::SYS_rename => Ok(()),

        libc::SYS_execve => paths.executed(libc::AT_FDCWD, a[0], 0, facts),
        libc::SYS_execveat => paths.executed(int(a[0]), a[1], int(a[4]), facts),
        libc::SYS_munmap => gather(call.tid, &(a[0]..a[0].saturating_add(a[1])), context, facts),
        // Moving keeps the pages; only what is cut off is lost.
        libc::SYS_mremap if a[2] >= a[1] => Ok(()),
        libc::SYS_mremap => gather(call.tid, &(a[0].saturating_add(a[2])..a[0].saturating_add(a[1])), context, facts),
        libc::SYS_exit => {
            facts.push(Fact::Gone { tid: call.tid });
            if caller.is_alone()? { gather(call.tid, &ALL, context, facts) } else { Ok(()) }
        }
        libc::SYS_exit_group => {
            facts.push(Fact::Ended { tid: call.tid });
            gather(call.tid, &ALL, context, facts)
        }
        libc::SYS_io_uring_setup => {
            let how = "set up io_uring: what it reads through the ring is not seen";
            facts.push(Fact::Blind { how, comm: caller.comm() });
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Every address.
const ALL: Range<u64> = 0..u64::MAX;

/// The touched pages of mappings that are about to vanish.
fn gather(tid: u32, within: &Range<u64>, context: &impl Context, facts: &mut Vec<Fact>) -> io::Result<()> {
    if !context.is_ours(tid) && (within.end == u64::MAX || may_map_files(tid, within)?) {
        facts.extend(mappings::sample(tid, within, context)?);
    }
    Ok(())
}

/// Calls that read from a descriptor.
struct Reading<'a, C> {
    caller: &'a Caller,
    context: &'a C,
}

impl<C: Context> Reading<'_, C> {
    /// The file, if it is a regular one.
    fn file(&self, fd: i32, facts: &mut Vec<Fact>) -> io::Result<Option<Stat>> {
        let stat = self.caller.file(fd)?;
        if !stat.is_regular() || stat.size == 0 {
            return Ok(None);
        }
        if !self.context.has_name(stat.key)
            && let Ok(path) = self.caller.file_path(fd)
            && let Some(path) = below(self.context.base(), &path)
        {
            if is_made_up(path) {
                return Ok(None);
            }
            facts.push(Fact::Seen { stat, kinds: 0 });
            facts.push(Fact::Named { key: stat.key, path: path.to_owned() });
        }
        Ok(Some(stat))
    }

    /// At the file's position.
    fn here(&self, fd: i32, length: u64, facts: &mut Vec<Fact>) -> io::Result<()> {
        let Some(stat) = self.file(fd, facts)? else { return Ok(()) };
        let start = self.caller.position(fd)?;
        facts.push(Fact::Touched { stat, kinds: READ, start, end: start.saturating_add(length) });
        Ok(())
    }

    /// At an offset.
    fn at(&self, fd: i32, start: u64, length: u64, facts: &mut Vec<Fact>) -> io::Result<()> {
        let Some(stat) = self.file(fd, facts)? else { return Ok(()) };
        facts.push(Fact::Touched { stat, kinds: READ, start, end: start.saturating_add(length) });
        Ok(())
    }

    /// At an offset in memory, or at the position where there is none.
    fn maybe_at(&self, fd: i32, pointer: u64, length: u64, facts: &mut Vec<Fact>) -> io::Result<()> {
        match pointer {
            0 => self.here(fd, length, facts),
            pointer => self.at(fd, self.caller.number(pointer)?, length, facts),
        }
    }

    /// Through the old asynchronous interface.
    fn submitted(&self, pointers: u64, count: u64, facts: &mut Vec<Fact>) -> io::Result<()> {
        for pointer in self.caller.records::<8>(pointers, count)? {
            let mut iocb = [0; IOCB];
            self.caller.memory(u64::from_ne_bytes(pointer), &mut iocb)?;
            let word = |at: usize| iocb[at..].first_chunk().map_or(0, |b| u64::from_ne_bytes(*b));
            let operation = u16::from_ne_bytes([iocb[16], iocb[17]]);
            let (fd, buffer, length, offset) = (int(word(20)), word(24), word(32), word(40));
            match operation {
                IOCB_CMD_PREAD => self.at(fd, offset, length, facts)?,
                IOCB_CMD_PREADV => self.at(fd, offset, self.caller.wanted(buffer, length)?, facts)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// A mapping to be. Its pages show when they are touched.
    fn mapped(&self, fd: i32, flags: i32, start: u64, length: u64, facts: &mut Vec<Fact>) -> io::Result<()> {
        let Some(stat) = self.file(fd, facts)? else { return Ok(()) };
        facts.push(Fact::Mapped { stat, path: self.caller.file_path(fd)? });
        if flags & (libc::MAP_POPULATE | libc::MAP_LOCKED) != 0 {
            facts.push(Fact::Touched { stat, kinds: MMAP, start, end: start.saturating_add(length) });
        }
        Ok(())
    }
}

/// Calls that name a path.
struct Paths<'a, C> {
    caller: &'a Caller,
    context: &'a C,
}

impl<C: Context> Paths<'_, C> {
    fn looked_up(&self, dir: i32, path: u64, facts: &mut Vec<Fact>) -> io::Result<()> {
        let path = self.caller.absolute(dir, &self.caller.string(path)?)?;
        facts.push(Fact::LookedUp(self.caller.contained(self.context.base(), &path)?));
        Ok(())
    }

    fn opened(&self, dir: i32, path: u64, flags: i32, facts: &mut Vec<Fact>) -> io::Result<()> {
        let inside = self.caller.absolute(dir, &self.caller.string(path)?)?;
        let path = self.caller.contained(self.context.base(), &inside)?;
        let writes = flags & libc::O_ACCMODE != libc::O_RDONLY && flags & libc::O_PATH == 0;
        // There `self` would be us.
        if is_made_up(&path) {
            facts.push(Fact::LookedUp(path));
            return Ok(());
        }
        match self.caller.find(&inside) {
            Ok(found) if found.stat.is_regular() => {
                let stat = found.stat;
                facts.push(Fact::Seen { stat, kinds: OPEN });
                facts.push(Fact::Named { key: stat.key, path });
                if writes {
                    facts.push(Fact::Wrote { key: stat.key, comm: self.caller.comm() });
                }
            }
            Ok(_) => facts.push(Fact::LookedUp(path)),
            Err(e) if is_moot(&e) => {
                facts.push(Fact::LookedUp(path));
                if flags & libc::O_CREAT != 0 {
                    facts.push(Fact::Creates { tid: self.caller.tid, path: inside, comm: self.caller.comm() });
                }
            }
            Err(e) => return Err(e),
        }
        Ok(())
    }

    fn executed(&self, dir: i32, path: u64, flags: i32, facts: &mut Vec<Fact>) -> io::Result<()> {
        let path = self.caller.string(path)?;
        let inside = if path.is_empty() && flags & libc::AT_EMPTY_PATH != 0 {
            self.caller.inside(&self.caller.file_path(dir)?)?
        } else {
            self.caller.absolute(dir, &path)?
        };
        let found = executed(self.caller, self.context.base(), inside)?;
        // A search along PATH asks for many that are not there; only one that is makes the mappings vanish.
        let will_run = found.iter().any(|f| matches!(f, Fact::Touched { .. }));
        facts.extend(found);
        if will_run { gather(self.caller.tid, &ALL, self.context, facts) } else { Ok(()) }
    }
}

/// Writers of files that a thread was about to create, once they are there.
pub(super) fn created(tid: u32, files: Vec<(Vec<u8>, String)>, base: &[u8]) -> Vec<Fact> {
    let caller = Caller::new(tid);
    let found = |(path, comm): (Vec<u8>, String)| {
        let theirs = caller.find(&path).map(|f| f.stat);
        // The thread may be gone.
        let stat = theirs.or_else(|_| stat_path(&[base, &path].concat())).ok().filter(Stat::is_regular)?;
        Some(Fact::Wrote { key: stat.key, comm })
    };
    files.into_iter().filter_map(found).collect()
}
