//! Words in mapped memory: a file that several processes map, or anonymous pages.
//!
//! [`MappedWords`] may write, [`MappedView`] may not. Both are cheap clones (one reference count) of
//! the same mapping and keep it alive; [`slice`](MappedWords::slice) narrows one to a region, so that
//! a region can be handed out without the rest of the file.
//!
//! Memory that another process writes is never borrowed as plain data: the only references made here
//! are `&[AtomicU64]`, whose accesses are atomic whatever the other side does. A mapping is only made
//! of a file that was checked to be at least as long as the mapping and is, by the rules of this
//! crate, never truncated; a truncation from outside would be a bus error and is out of scope.

use std::fs::File;
use std::io;
use std::ptr::NonNull;
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use memmap2::{MmapMut, MmapOptions, MmapRaw};
use rustix::mm::{MapFlags, ProtFlags};

use crate::words::{LARGE, Words, WordsMut, prefetch};

/// Writable words of a mapping that may be shared with other processes.
#[derive(Clone, Debug)]
pub struct MappedWords(Region);

impl MappedWords {
    /// Maps the first `len` words of `file` for reading and writing and faults them in, with
    /// [large pages](Self::ask_for_large_pages) behind a large file.
    ///
    /// The file must be that long already, which the caller has checked.
    pub(crate) fn of_file(file: &File, len: usize) -> io::Result<Self> {
        let words = Self(match len.saturating_mul(WORD) {
            LARGE.. => aligned(file, len, ProtFlags::READ | ProtFlags::WRITE)?,
            bytes => Region::new(MmapOptions::new().len(bytes).populate().map_raw(file)?, len),
        });
        words.ask_for_large_pages();
        Ok(words)
    }

    /// Maps `len` zeroed words of anonymous memory. A page costs nothing until it is first touched.
    ///
    /// A page on either side cannot be accessed. So the kernel keeps the mapping apart from others,
    /// and what it takes can be read from `/proc/PID/smaps`: it is the only one of its size.
    pub fn anonymous(len: usize) -> io::Result<Self> {
        let page = rustix::param::page_size();
        let bytes = (len * WORD).next_multiple_of(page);
        let map = MmapRaw::from(MmapMut::map_anon(bytes + 2 * page)?);
        for guard in [0, page + bytes] {
            forbid(&map, guard, page)?;
        }
        Ok(Self(Region::within(map, page / WORD, len)))
    }

    /// Moves words that are there already into pages of 2 MiB, as far as the kernel does that:
    /// since Linux 6.1, in anonymous memory and on tmpfs, whatever its settings for huge pages say of
    /// memory that nobody asks for. Most of what a random access costs is finding the page.
    ///
    /// Takes a copy of the memory's time, once. Where it cannot be done nothing changes. Others who
    /// map the same file find the large pages as well.
    pub fn ask_for_large_pages(&self) {
        collapse(self.0.cells());
    }

    /// The `len` words from `at` on, or `None` where they are not all inside.
    pub fn slice(&self, at: usize, len: usize) -> Option<Self> {
        self.0.slice(at, len).map(Self)
    }

    /// The same words, without the right to write.
    pub fn view(&self) -> MappedView {
        MappedView(self.0.clone())
    }
}

impl Words for MappedWords {
    #[inline]
    fn len(&self) -> usize {
        self.0.len
    }

    #[inline]
    fn load(&self, at: usize, order: Ordering) -> u64 {
        self.0.cells()[at].load(order)
    }

    #[inline]
    fn fence(&self, order: Ordering) {
        fence(order);
    }

    #[inline]
    fn prefetch(&self, at: usize) {
        prefetch(&self.0.cells()[at]);
    }

    #[inline]
    fn load_run(&self, at: usize, out: &mut [u64]) {
        self.0.load_run(at, out);
    }
}

impl WordsMut for MappedWords {
    #[inline]
    fn store(&self, at: usize, value: u64, order: Ordering) {
        self.0.cells()[at].store(value, order);
    }

    #[inline]
    fn compare_exchange(
        &self,
        at: usize,
        current: u64,
        new: u64,
        success: Ordering,
        failure: Ordering,
    ) -> Result<u64, u64> {
        self.0.cells()[at].compare_exchange(current, new, success, failure)
    }

    #[inline]
    fn fetch_add(&self, at: usize, delta: u64, order: Ordering) -> u64 {
        self.0.cells()[at].fetch_add(delta, order)
    }
}

/// Words of a mapping that this process may only read.
#[derive(Clone, Debug)]
pub struct MappedView(Region);

impl MappedView {
    /// Maps the first `len` words of `file` read-only and faults them in.
    ///
    /// The file must be that long already, which the caller has checked.
    pub(crate) fn of_file(file: &File, len: usize) -> io::Result<Self> {
        Ok(Self(match len.saturating_mul(WORD) {
            LARGE.. => aligned(file, len, ProtFlags::READ)?,
            bytes => {
                let map = MmapOptions::new().len(bytes).populate().map_raw_read_only(file)?;
                Region::new(map, len)
            }
        }))
    }

    /// The `len` words from `at` on, or `None` where they are not all inside.
    pub fn slice(&self, at: usize, len: usize) -> Option<Self> {
        self.0.slice(at, len).map(Self)
    }
}

impl Words for MappedView {
    #[inline]
    fn len(&self) -> usize {
        self.0.len
    }

    /// A relaxed load, followed by a fence where more is asked for: Rust guarantees that relaxed
    /// loads, and only they, are free of hidden writes and so work on read-only pages.
    #[inline]
    fn load(&self, at: usize, order: Ordering) -> u64 {
        let word = self.0.cells()[at].load(Ordering::Relaxed);
        if !matches!(order, Ordering::Relaxed) {
            fence(order);
        }
        word
    }

    #[inline]
    fn fence(&self, order: Ordering) {
        fence(order);
    }

    #[inline]
    fn prefetch(&self, at: usize) {
        prefetch(&self.0.cells()[at]);
    }

    #[inline]
    fn load_run(&self, at: usize, out: &mut [u64]) {
        self.0.load_run(at, out);
    }
}

const WORD: usize = size_of::<u64>();
/// Bytes of a large page.
const LARGE_PAGE: usize = 2 << 20;

/// Maps a file where large pages can lie behind it: at a multiple of their size.
#[allow(unsafe_code)]
fn aligned(file: &File, len: usize, access: ProtFlags) -> io::Result<Region> {
    let bytes = len * WORD;
    let room = bytes.next_multiple_of(LARGE_PAGE) + LARGE_PAGE;
    // Addresses for it, nothing else: what is left of them stays inaccessible.
    let map = MmapRaw::from(MmapOptions::new().len(room).no_reserve_swap().map_anon()?);
    forbid(&map, 0, room)?;
    let at = map.as_mut_ptr().align_offset(LARGE_PAGE).min(LARGE_PAGE);
    let flags = MapFlags::FIXED | MapFlags::SHARED | MapFlags::POPULATE;
    // SAFETY: the pages replaced are inside the mapping just made (`at` is at most one large page,
    // and there is one more than the file takes), which nothing refers to yet; dropping that
    // mapping unmaps the file with it.
    unsafe { rustix::mm::mmap(map.as_mut_ptr().add(at).cast(), bytes, access, flags, file, 0)? };
    Ok(Region::within(map, at / WORD, len))
}

/// See [`MappedWords::ask_for_large_pages`].
#[allow(unsafe_code)]
fn collapse(cells: &[AtomicU64]) {
    #[cfg(all(target_os = "linux", not(miri)))]
    {
        /// `MADV_COLLAPSE` of `linux/mman.h`.
        const COLLAPSE: libc::c_int = 25;
        let bytes = size_of_val(cells);
        let skip = cells.as_ptr().cast::<u8>().align_offset(LARGE_PAGE);
        let len = bytes.saturating_sub(skip) / LARGE_PAGE * LARGE_PAGE;
        if bytes < LARGE || len == 0 {
            return;
        }
        let first = cells.as_ptr().cast::<u8>().wrapping_add(skip);
        // SAFETY: whole pages inside of the cells; what is in them and who may access them stays
        // as it is whatever the kernel makes of the advice.
        unsafe { libc::madvise(first.cast_mut().cast(), len, COLLAPSE) };
    }
    let _ = cells;
}

/// Makes `len` bytes from `at` on, whole pages of a mapping, inaccessible.
#[allow(unsafe_code)]
fn forbid(map: &MmapRaw, at: usize, len: usize) -> io::Result<()> {
    use rustix::mm::{MprotectFlags, mprotect};
    let inside = at.checked_add(len).is_some_and(|end| end <= map.len());
    if !inside {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    // SAFETY: the pages are inside the mapping, as just checked, and nothing refers to them: the
    // only region that is made of the mapping lies between them.
    unsafe { Ok(mprotect(map.as_mut_ptr().add(at).cast(), len, MprotectFlags::empty())?) }
}

/// A run of words inside a mapping, which it keeps alive.
#[derive(Clone, Debug)]
struct Region {
    first: NonNull<AtomicU64>,
    len: usize,
    map: Arc<MmapRaw>,
}

// SAFETY: a region is a pointer into a mapping that it keeps alive, and everything behind the pointer
// is accessed through `AtomicU64` only, which may be shared between threads.
#[allow(unsafe_code)]
unsafe impl Send for Region {}
// SAFETY: as for `Send`: shared access is atomic access.
#[allow(unsafe_code)]
unsafe impl Sync for Region {}

impl Region {
    fn new(map: MmapRaw, len: usize) -> Self {
        // A mapping starts on a page, so it is aligned for words; it is never null, which is checked
        // only because it costs nothing.
        let len = len.min(map.len() / WORD);
        let (first, len) = match NonNull::new(map.as_mut_ptr().cast()) {
            Some(first) => (first, len),
            None => (NonNull::dangling(), 0),
        };
        Self { first, len, map: Arc::new(map) }
    }

    /// The `len` words from `at` on, of which the mapping must have that many.
    #[allow(unsafe_code)]
    fn within(map: MmapRaw, at: usize, len: usize) -> Self {
        let whole = Self::new(map, usize::MAX);
        let at = at.min(whole.len);
        let len = len.min(whole.len - at);
        // SAFETY: `at` words lie inside the mapping, as just made sure of.
        let first = unsafe { whole.first.add(at) };
        Self { first, len, map: whole.map }
    }

    fn slice(&self, at: usize, len: usize) -> Option<Self> {
        if at.checked_add(len)? > self.len {
            return None;
        }
        let first = NonNull::from(self.cells().get(at..)?).cast();
        Some(Self { first, len, map: Arc::clone(&self.map) })
    }

    #[inline]
    #[allow(unsafe_code)]
    fn cells(&self) -> &[AtomicU64] {
        // SAFETY: `new` and `slice` keep `first .. first + len` inside the mapping, which `map` keeps
        // alive for as long as the returned borrow of `self`; the mapping is page-aligned; any bit
        // pattern is a valid `AtomicU64`; no reference to these bytes of another type is ever made.
        // On a read-only mapping only `load(Relaxed)` is reachable (see `MappedView`).
        unsafe { slice::from_raw_parts(self.first.as_ptr(), self.len) }
    }

    #[inline]
    fn load_run(&self, at: usize, out: &mut [u64]) {
        // One bounds check for the whole run instead of one per word.
        let cells = &self.cells()[at..][..out.len()];
        for (word, cell) in out.iter_mut().zip(cells) {
            *word = cell.load(Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_stay_inside() {
        let words = MappedWords::anonymous(16).unwrap();
        let part = words.slice(8, 8).unwrap();
        part.store(7, 42, Ordering::Relaxed);
        assert_eq!(words.view().load(15, Ordering::Acquire), 42);
        assert_eq!(part.len(), 8);
        assert!(words.slice(9, 8).is_none());
        assert!(words.slice(usize::MAX, 2).is_none());
        assert_eq!(part.slice(8, 0).map(|empty| empty.is_empty()), Some(true));
    }

    #[test]
    #[cfg_attr(miri, ignore = "maps a file")]
    fn large_files_lie_where_large_pages_can() {
        let len = (LARGE + LARGE_PAGE + 4096) / WORD;
        let file = tempfile::tempfile().unwrap();
        file.set_len((len * WORD) as u64).unwrap();
        let words = MappedWords::of_file(&file, len).unwrap();
        let view = MappedView::of_file(&file, len).unwrap();
        for at in [0, len / 2, len - 1] {
            words.store(at, at as u64 + 1, Ordering::Release);
        }
        words.ask_for_large_pages();
        for at in [0, len / 2, len - 1] {
            assert_eq!(view.load(at, Ordering::Acquire), at as u64 + 1);
        }
        assert_eq!((words.len(), view.len()), (len, len));
        for region in [&words.0, &view.0] {
            assert_eq!(region.first.as_ptr() as usize % LARGE_PAGE, 0);
        }
    }

    #[test]
    #[should_panic(expected = "out of bounds")]
    fn an_index_past_the_end_panics() {
        MappedWords::anonymous(8).unwrap().load(8, Ordering::Relaxed);
    }
}
