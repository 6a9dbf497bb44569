//! The directory that holds the files, and the checks that make them trustworthy.
//!
//! All access goes through the directory's descriptor (`openat`), never through a symbolic link, and
//! a file is taken only when it is a regular file of the expected owner that nobody else may write.
//! The directory itself is mode 0700 of the same owner. Together this means: who can forge these
//! files is already the user that runs the proxy.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{self, AtFlags, FlockOperation, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::error::{Error, expect, refused};

/// Whose files are accepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Owner {
    /// Those of this process's effective user.
    #[default]
    Effective,
    /// Those of this user id: for a reader that runs as root beside a writer that does not.
    Uid(u32),
}

impl Owner {
    fn uid(self) -> u32 {
        match self {
            Self::Effective => rustix::process::geteuid().as_raw(),
            Self::Uid(uid) => uid,
        }
    }
}

/// An open directory whose owner and mode were checked.
#[derive(Debug)]
pub(crate) struct Directory {
    fd: OwnedFd,
    path: PathBuf,
    uid: u32,
}

/// The size a file takes and what its volume has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allocation {
    /// Bytes that the file needs, all of them allocated at creation.
    pub required: u64,
    /// Bytes that were free on the volume before that.
    pub free: u64,
}

impl Directory {
    /// Opens an existing directory.
    pub(crate) fn open(path: &Path, owner: Owner) -> Result<Self, Error> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = fs::open(path, flags, Mode::empty()).map_err(|e| Error::io("open", path, e))?;
        let stat = fs::fstat(&fd).map_err(|e| Error::io("inspect", path, e))?;
        let uid = owner.uid();
        expect(path, "owner", stat.st_uid, uid)?;
        let mode = stat.st_mode & 0o7777;
        if mode & 0o077 != 0 {
            return Err(refused(path, "mode", format!("{mode:04o}"), "0700"));
        }
        Ok(Self { fd, path: path.to_path_buf(), uid })
    }

    /// Opens a directory of this process's user, creating it where it is missing.
    pub(crate) fn create(path: &Path) -> Result<Self, Error> {
        match fs::mkdir(path, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => Self::open(path, Owner::Effective),
            Err(e) => Err(Error::io("create", path, e)),
        }
    }

    /// A second handle on the same directory.
    pub(crate) fn try_clone(&self) -> Result<Self, Error> {
        let fd = self.fd.try_clone().map_err(|e| Error::io("open", &self.path, e))?;
        Ok(Self { fd, path: self.path.clone(), uid: self.uid })
    }

    pub(crate) fn path_of(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Opens an existing file for reading only.
    pub(crate) fn open_file(&self, name: &str) -> Result<File, Error> {
        self.open_with(name, OFlags::RDONLY)
    }

    /// Opens an existing file for reading and writing.
    pub(crate) fn open_file_mut(&self, name: &str) -> Result<File, Error> {
        self.open_with(name, OFlags::RDWR)
    }

    /// Creates a file of exactly `len` bytes of zero, all allocated. It must not exist yet.
    pub(crate) fn create_file(&self, name: &str, len: u64) -> Result<(File, Allocation), Error> {
        let allocation = Allocation { required: len, free: self.free()? };
        let path = self.path_of(name);
        if allocation.required > allocation.free {
            return Err(Error::NoSpace { path, required: len, free: allocation.free });
        }
        let file = self.create_allocated(name, len)?;
        Ok((file, allocation))
    }

    /// Opens the lock file `name`, creating it where it is missing.
    pub(crate) fn lock_file(&self, name: &str) -> Result<File, Error> {
        self.open_with(name, OFlags::RDWR | OFlags::CREATE)
    }

    /// Renames a file inside the directory, replacing what has the new name.
    pub(crate) fn rename(&self, from: &str, to: &str) -> Result<(), Error> {
        fs::renameat(&self.fd, from, &self.fd, to)
            .map_err(|e| Error::io("rename", &self.path_of(from), e))
    }

    /// Removes a file; one that is already gone is no error.
    pub(crate) fn remove(&self, name: &str) -> Result<(), Error> {
        match fs::unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(e) => Err(Error::io("remove", &self.path_of(name), e)),
        }
    }

    /// The identity of the file that has this name now, or `None` where there is none.
    pub(crate) fn identity(&self, name: &str) -> Option<FileIdentity> {
        let stat = fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        Some(FileIdentity::of(&stat))
    }

    /// The names of the regular files.
    pub(crate) fn names(&self) -> Result<Vec<String>, Error> {
        let read = |e: Errno| Error::io("list", &self.path, e);
        let mut names = Vec::new();
        for entry in fs::Dir::read_from(&self.fd).map_err(read)? {
            let entry = entry.map_err(read)?;
            // Only names that this crate makes are of interest, and those are all ASCII.
            if let Ok(name) = entry.file_name().to_str()
                && name != "."
                && name != ".."
            {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    fn open_with(&self, name: &str, flags: OFlags) -> Result<File, Error> {
        let path = self.path_of(name);
        // NONBLOCK: a forged FIFO must not hold the open; it has no meaning for regular files.
        let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let fd = fs::openat(&self.fd, name, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|e| Error::io("open", &path, e))?;
        let stat = fs::fstat(&fd).map_err(|e| Error::io("inspect", &path, e))?;
        if !fs::FileType::from_raw_mode(stat.st_mode).is_file() {
            return Err(refused(&path, "type", "special", "regular file"));
        }
        expect(&path, "owner", stat.st_uid, self.uid)?;
        let mode = stat.st_mode & 0o7777;
        if mode & 0o022 != 0 {
            return Err(refused(&path, "mode", format!("{mode:04o}"), "not writable by others"));
        }
        Ok(File::from(fd))
    }

    /// Creates and allocates; on failure nothing is left behind.
    fn create_allocated(&self, name: &str, len: u64) -> Result<File, Error> {
        let path = self.path_of(name);
        let flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let fd = fs::openat(&self.fd, name, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|e| Error::io("create", &path, e))?;
        let file = File::from(fd);
        if let Err(source) = allocate(&file, len) {
            self.remove(name)?;
            return Err(Error::io("allocate", &path, source));
        }
        Ok(file)
    }

    fn free(&self) -> Result<u64, Error> {
        let stat = fs::fstatvfs(&self.fd).map_err(|e| Error::io("measure", &self.path, e))?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

/// Which file a name stood for: a name can be given to another file, this cannot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileIdentity {
    device: u64,
    inode: u64,
}

impl FileIdentity {
    pub(crate) fn of_file(file: &File) -> io::Result<Self> {
        Ok(Self::of(&fs::fstat(file)?))
    }

    fn of(stat: &Stat) -> Self {
        Self { device: stat.st_dev, inode: stat.st_ino }
    }
}

/// The length of a file, which must be a whole number of words.
pub(crate) fn words_in(file: &File, path: &Path) -> Result<usize, Error> {
    let len = file.metadata().map_err(|e| Error::io("inspect", path, e))?.len();
    if len % 8 != 0 {
        return Err(refused(path, "length", len, "a multiple of 8"));
    }
    usize::try_from(len / 8).map_err(|_| refused(path, "length", len, "addressable"))
}

/// Takes the exclusive lock of `file` for as long as it stays open; `false` where another holds one.
///
/// The lock belongs to the open file, not to a process id, so the kernel drops it with the last
/// descriptor however its owner ends, and it means the same in every container that shares the volume.
pub(crate) fn try_lock(file: &File, path: &Path) -> Result<bool, Error> {
    lock_with(file, path, FlockOperation::NonBlockingLockExclusive)
}

/// Whether nobody holds the exclusive lock of `file`.
pub(crate) fn is_abandoned(file: &File, path: &Path) -> Result<bool, Error> {
    lock_with(file, path, FlockOperation::NonBlockingLockShared)
}

fn lock_with(file: &File, path: &Path, operation: FlockOperation) -> Result<bool, Error> {
    match fs::flock(file, operation) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(e) => Err(Error::io("lock", path, e)),
    }
}

/// Gives `file` `len` bytes that are really there, so that no later access can find the volume full.
fn allocate(file: &File, len: u64) -> io::Result<()> {
    match fs::fallocate(file, fs::FallocateFlags::empty(), 0, len) {
        Ok(()) => Ok(()),
        // A file system without preallocation: writing every byte has the same effect.
        Err(Errno::OPNOTSUPP) => {
            let mut zeros = io::Read::take(io::repeat(0), len);
            io::copy(&mut zeros, &mut &*file).map(drop)
        }
        Err(e) => Err(e.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg_attr(miri, ignore = "needs a file system")]
    fn what_cannot_be_allocated_is_not_left_behind() {
        let dir = tempfile::tempdir().unwrap();
        let dir = Directory::create(&dir.path().join("new")).unwrap();
        // Past the volume check, so that it is the allocation itself that fails.
        let error = dir.create_allocated("file", i64::MAX as u64).unwrap_err();
        assert!(matches!(error, Error::Io { action: "allocate", .. }), "{error}");
        assert_eq!(dir.names().unwrap(), [""; 0]);
        dir.create_file("file", 4096).unwrap();
        assert!(dir.create_file("file", 4096).is_err(), "files are never reused");
    }

    #[test]
    #[cfg_attr(miri, ignore = "needs a file system")]
    fn a_file_is_as_long_as_asked_for_and_really_there() {
        use std::os::unix::fs::MetadataExt;

        let dir = tempfile::tempdir().unwrap();
        let dir = Directory::create(&dir.path().join("new")).unwrap();
        let (file, allocation) = dir.create_file("file", 1 << 20).unwrap();
        let metadata = file.metadata().unwrap();
        assert_eq!((metadata.len(), allocation.required), (1 << 20, 1 << 20));
        assert!(metadata.blocks() * 512 >= 1 << 20, "not sparse");
        assert_eq!(metadata.mode() & 0o777, 0o600);
    }
}
