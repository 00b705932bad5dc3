//! What the connections of file transfer share: the directory, what is in it, who writes and reads, and the hashes that are
//! known. Touches the directory through [`Disk`] only.

use crate::disk::{Access, Disk, Facts, File, Listing, write_all};
use crate::limits::Limits;
use crate::time::Moment;
use crate::wire::files::{Digest, name as checked_name, part_name, part_of};
use sha2::{Digest as _, Sha256};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::rc::{Rc, Weak};
use std::time::Duration;

/// What whoever runs the server decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Permissions {
    /// Clients may take files away.
    pub may_delete: bool,
    /// A file is on the disk before it is said to be stored.
    pub sync: bool,
}

/// Why something asked for is not done: `ERROR word: sentence`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) word: &'static str,
    pub(super) sentence: String,
}

pub(super) fn refused(word: &'static str, sentence: impl Into<String>) -> Refused {
    Refused { word, sentence: sentence.into() }
}

fn disk(error: io::Error) -> Refused {
    refused("disk", error.to_string())
}

/// The directory and what is known of it.
pub struct Store {
    disk: Box<dyn Disk>,
    permissions: Permissions,
    /// Finished files when last counted, and what has changed since by us.
    count: usize,
    bytes: u64,
    /// When that was; others may have changed the directory since.
    counted: Moment,
    /// Unfinished files that may be gone on with, and scraps that could not be removed.
    parts: Vec<Part>,
    /// `uploads.len() <= Limits::files_uploads`, no name twice.
    uploads: Vec<Claim>,
    /// Who reads a file or the directory: `readers <= Limits::files_readers`.
    readers: usize,
    /// What is being hashed to be sent; those that nobody waits for any longer are taken out with the next one.
    jobs: Vec<Weak<RefCell<Job>>>,
    /// The latest at the back.
    hashes: VecDeque<(Version, Digest)>,
    /// For whatever is read; left as it happens to be.
    scratch: Vec<u8>,
}

/// What must not have changed for a hash to hold: inode, size, time.
type Version = (u64, u64, i128);

fn version(facts: &Facts) -> Version {
    (facts.inode, facts.size, facts.modified_nanos)
}

struct Part {
    file: String,
    bytes: u64,
    expires: Moment,
}

/// A name that is being uploaded, and the room it may fill.
struct Claim {
    name: String,
    part: String,
    /// The whole file is there already: nothing has the name of the part.
    is_stored: bool,
    bytes: u64,
    file: Handle,
}

/// What an upload writes, shared with its claim: once that was taken over it holds nothing, and the upload may touch nothing.
type Handle = Rc<RefCell<Option<Box<dyn File>>>>;

/// One file on its way in.
pub(super) struct Upload {
    pub(super) name: String,
    pub(super) size: u64,
    digest: Option<Digest>,
    part: String,
    file: Handle,
    /// Bytes hashed so far; from `there` on they are also the bytes written.
    pub(super) at: u64,
    /// Bytes that were there before: `at <= size`, `there <= size`.
    there: u64,
    hasher: Sha256,
    /// The whole file is there already, under its name, and this is it.
    stored: Option<Facts>,
    /// When its part goes, if it stays one.
    expires: Moment,
    /// It was whole in an earlier turn.
    pub(super) has_waited: bool,
}

impl Upload {
    /// What was there before is still being looked at.
    pub(super) fn is_catching_up(&self) -> bool {
        self.at < self.there
    }

    pub(super) fn is_whole(&self) -> bool {
        !self.is_catching_up() && self.at == self.size
    }

    fn is_lost(&self) -> bool {
        self.file.borrow().is_none()
    }

    /// Does something with the file, if it is still ours.
    fn with<T>(&self, act: impl FnOnce(&mut dyn File) -> io::Result<T>) -> Result<T, Refused> {
        match self.file.borrow_mut().as_mut() {
            Some(file) => act(file.as_mut()).map_err(disk),
            None => Err(refused("busy", format!("{} goes on with another connection", self.name))),
        }
    }

    /// Takes bytes from the front of `bytes`, and returns how many.
    pub(super) fn take(&mut self, bytes: &[u8], now: Moment, limits: &Limits) -> Result<usize, Refused> {
        let left = usize::try_from(self.size - self.at).unwrap_or(usize::MAX);
        let bytes = &bytes[..bytes.len().min(left)];
        self.with(|file| write_all(file, self.at, bytes))?;
        self.hasher.update(bytes);
        self.at += bytes.len() as u64;
        self.expires = now + limits.files_part_ttl;
        Ok(bytes.len())
    }
}

/// One version of a file that is being hashed, for all downloads that wait for it: each goes on with it when its turn comes. It
/// goes with the last of them.
///
/// A client that has gone cannot be told from one that has ended its side and waits for the file. What it holds, a place among the
/// readers, it holds until the hash is known and it is written to: however many ask for one file, as long as one hash takes.
struct Job {
    /// As they were before the first byte was read.
    facts: Facts,
    file: Shared,
    hasher: Sha256,
    at: u64,
    outcome: Option<Result<Digest, Refused>>,
}

/// One file that is read by several, each at its own place.
type Shared = Rc<RefCell<Box<dyn File>>>;

impl Job {
    /// Whether who asks now may have this hash. What was changed just before it began may have been changed again since, within
    /// the same step of the clock.
    fn may_be_joined(&self, facts: &Facts) -> bool {
        self.outcome.is_none() && has_settled(&self.facts) && version(&self.facts) == version(facts)
    }

    /// Hashes so many bytes more, and what they are is known at the end. An error is the end as well: how much of that piece has
    /// been hashed nobody knows.
    fn go_on(&mut self, name: &str, scratch: &mut Vec<u8>, most: usize) {
        let mut file = self.file.borrow_mut();
        let size = self.facts.size;
        self.outcome = match hash_some(file.as_mut(), &mut self.hasher, self.at, size, scratch, most) {
            Ok(at) if at < size => {
                self.at = at;
                None
            }
            Ok(_) => Some(match file.facts() {
                Ok(facts) if version(&facts) == version(&self.facts) => {
                    Ok(Digest(self.hasher.clone().finalize().into()))
                }
                Ok(_) => Err(changing(name)),
                Err(error) => Err(disk(error)),
            }),
            Err(error) => Some(Err(disk(error))),
        };
    }
}

/// One file on its way out.
pub(super) struct Download {
    pub(super) name: String,
    pub(super) size: u64,
    facts: Facts,
    file: Shared,
    /// Bytes read to be sent, once the hash is known: `offset <= at <= size`.
    pub(super) at: u64,
    /// Until the hash is known.
    job: Option<Rc<RefCell<Job>>>,
}

impl Download {
    /// The hash is not known yet.
    pub(super) fn is_being_hashed(&self) -> bool {
        self.job.is_some()
    }
}

impl Store {
    /// Takes a directory over: counts what is there, and removes what was left unfinished and cannot be gone on with.
    ///
    /// # Errors
    /// The disk's.
    pub fn open(disk: Box<dyn Disk>, permissions: Permissions, limits: &Limits) -> io::Result<Store> {
        let mut store = Store {
            disk,
            permissions,
            count: 0,
            bytes: 0,
            counted: Moment::START,
            parts: Vec::new(),
            uploads: Vec::new(),
            readers: 0,
            jobs: Vec::new(),
            hashes: VecDeque::new(),
            scratch: Vec::new(),
        };
        store.count(Moment::START, limits, usize::MAX)?;
        Ok(store)
    }

    /// Goes through the directory, but no further than the first `most` files: then it is full, whatever else is there.
    fn count(&mut self, now: Moment, limits: &Limits, most: usize) -> io::Result<()> {
        let (mut count, mut bytes, mut parts) = (0, 0, Vec::new());
        for entry in self.disk.list()? {
            let (file, facts) = entry?;
            if let Some((_, resumable)) = part_of(&file) {
                let expires = now + limits.files_part_ttl.saturating_sub(facts.age);
                let part = Part { file, bytes: facts.size, expires };
                if self.uploads.iter().any(|upload| upload.part == part.file) {
                    continue;
                }
                let may_stay = facts.is_plain && resumable.is_some() && part.expires > now;
                if may_stay || self.disk.remove(&part.file).is_err() {
                    parts.push(part);
                }
            } else if facts.is_plain && checked_name(file.as_bytes()).is_some() {
                (count, bytes) = (count + 1, bytes + facts.size);
                if count >= most {
                    (self.count, self.counted) = (count, now);
                    return Ok(());
                }
            }
        }
        (self.count, self.bytes, self.counted, self.parts) = (count, bytes, now, parts);
        self.drop_least(limits);
        Ok(())
    }

    /// Removes parts whose time is over. Called whenever somebody looks or needs room: nothing wakes for it.
    fn expire(&mut self, now: Moment, limits: &Limits) {
        let disk = &mut self.disk;
        self.parts.retain(|part| part.expires > now || disk.remove(&part.file).is_err_and(|error| !is_gone(&error)));
        self.drop_least(limits);
    }

    /// Bytes of files, parts but this one, and what uploads may still write.
    fn used(&self, but: &str) -> u64 {
        let parts: u64 = self.parts.iter().filter(|part| part.file != but).map(|part| part.bytes).sum();
        let uploads: u64 = self.uploads.iter().map(|upload| upload.bytes).sum();
        self.bytes.saturating_add(parts).saturating_add(uploads)
    }

    /// Whether there is room for a file of `size`, which takes the place of its part.
    fn check_room(&mut self, part: &str, size: u64, now: Moment, limits: &Limits) -> Result<(), Refused> {
        let is_full = |store: &Store| {
            if store.count + store.uploads.len() >= limits.files_count {
                return Some(format!("{} files are there already", limits.files_count));
            }
            let left = limits.files_quota_bytes.saturating_sub(store.used(part));
            (size > left).then(|| format!("{left} of {} bytes are left", limits.files_quota_bytes))
        };
        if is_full(self).is_some() && now - self.counted >= limits.files_recount {
            self.count(now, limits, limits.files_count).map_err(disk)?; // others may have made room
        }
        is_full(self).map_or(Ok(()), |sentence| Err(refused("quota", sentence)))
    }

    /// Begins to take a file in.
    pub(super) fn put(
        &mut self,
        name: &str,
        size: u64,
        digest: Option<Digest>,
        now: Moment,
        limits: &Limits,
    ) -> Result<Upload, Refused> {
        self.expire(now, limits);
        if size > limits.files_max_bytes {
            return Err(refused("size", format!("larger than {} bytes", limits.files_max_bytes)));
        }
        let part = part_name(name, size, digest);
        if let Some(at) = self.uploads.iter().position(|upload| upload.name == name) {
            if digest.is_none() || self.uploads[at].part != part {
                return Err(refused("busy", format!("{name} is being uploaded by somebody else")));
            }
            // The very same file: most likely by somebody whose connection has broken without our being told.
            let lost = self.uploads.swap_remove(at);
            *lost.file.borrow_mut() = None;
            if !lost.is_stored {
                self.parts.push(Part { file: lost.part, bytes: lost.bytes, expires: now + limits.files_part_ttl });
            }
        }
        if self.uploads.len() >= limits.files_uploads {
            return Err(refused("busy", format!("{} uploads at a time", limits.files_uploads)));
        }
        let name = name.to_string();
        let (hasher, expires, has_waited) = (Sha256::new(), now + limits.files_part_ttl, false);
        let upload = match self.disk.facts(&name).map_err(disk)? {
            Some(facts) => {
                self.may_be_same(&name, &facts, size, digest)?;
                let mut file = self.disk.open(&name, Access::Read).map_err(disk)?;
                if version(&file.facts().map_err(disk)?) != version(&facts) {
                    return Err(changing(&name));
                }
                let known = self.known(&facts);
                let at = if known.is_some() { size } else { 0 };
                let there = size;
                let mut upload = Upload {
                    name,
                    size,
                    digest,
                    part,
                    file: Rc::new(RefCell::new(Some(file))),
                    at,
                    there,
                    hasher,
                    stored: Some(facts),
                    expires,
                    has_waited,
                };
                if size == 0 {
                    self.catch_up(&mut upload, limits)?; // there is nothing that would take turns
                }
                upload
            }
            None => {
                self.check_room(&part, size, now, limits)?;
                let (file, there) = self.open_part(&part, size, digest.is_some()).map_err(disk)?;
                // What it has already counts as its own from here on.
                self.parts.retain(|known| known.file != part);
                Upload {
                    name,
                    size,
                    digest,
                    part,
                    file: Rc::new(RefCell::new(Some(file))),
                    at: 0,
                    there,
                    hasher,
                    stored: None,
                    expires,
                    has_waited,
                }
            }
        };
        let is_stored = upload.stored.is_some();
        let bytes = if is_stored { 0 } else { size };
        let (name, part, file) = (upload.name.clone(), upload.part.clone(), upload.file.clone());
        self.uploads.push(Claim { name, part, is_stored, bytes, file });
        Ok(upload)
    }

    /// A name that is taken can be uploaded again only as what it is.
    fn may_be_same(&mut self, name: &str, facts: &Facts, size: u64, digest: Option<Digest>) -> Result<(), Refused> {
        if !facts.is_plain {
            return Err(not_plain(name));
        }
        let is_other = |digest| self.known(facts).is_some_and(|known| known != digest);
        match digest {
            Some(digest) if facts.size == size && !is_other(digest) => Ok(()),
            _ => Err(exists(name)),
        }
    }

    /// Opens what there is of a part, or a new one. Returns how much there is.
    fn open_part(&mut self, part: &str, size: u64, may_resume: bool) -> io::Result<(Box<dyn File>, u64)> {
        if may_resume && let Ok(mut file) = self.disk.open(part, Access::Extend) {
            let there = file.facts()?.size;
            if there <= size {
                return Ok((file, there));
            }
        }
        match self.disk.open(part, Access::Create) {
            // Nobody else writes parts: it is what could not be removed, or no part at all.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                self.disk.remove(part)?;
                self.disk.open(part, Access::Create).map(|file| (file, 0))
            }
            result => result.map(|file| (file, 0)),
        }
    }

    /// Hashes more of what was there before, at most a turn's share. Fails when that is not what it was said to be.
    pub(super) fn catch_up(&mut self, upload: &mut Upload, limits: &Limits) -> Result<(), Refused> {
        let (at, there, mut hasher) = (upload.at, upload.there, std::mem::take(&mut upload.hasher));
        let (share, scratch) = (self.share(limits), &mut self.scratch);
        upload.at = upload.with(|file| hash_some(file, &mut hasher, at, there, scratch, share))?;
        upload.hasher = hasher;
        if let Some(stored) = upload.stored.filter(|_| !upload.is_catching_up()) {
            let facts = upload.with(|file| file.facts())?;
            if version(&facts) != version(&stored) {
                return Err(changing(&upload.name));
            }
            let digest = Digest(upload.hasher.clone().finalize().into());
            self.remember(&stored, digest, limits);
            if upload.digest != Some(digest) {
                return Err(exists(&upload.name));
            }
        }
        Ok(())
    }

    /// Checks a whole upload and gives it its name; returns its hash. The upload is over, however this ends.
    pub(super) fn finish(&mut self, mut upload: Upload, limits: &Limits) -> Result<Digest, Refused> {
        upload.with(|_| Ok(()))?;
        if let Some(stored) = upload.stored {
            self.uploads.retain(|claim| claim.name != upload.name);
            // It may have gone, or become another, while it was looked at.
            if self.disk.facts(&upload.name).map_err(disk)?.is_none_or(|facts| version(&facts) != version(&stored)) {
                return Err(changing(&upload.name));
            }
            return upload.digest.ok_or_else(|| exists(&upload.name));
        }
        let digest = Digest(upload.hasher.clone().finalize().into());
        let done = match upload.digest {
            Some(wanted) if wanted != digest => {
                Err(refused("hash", format!("what came has {digest}; it was thrown away")))
            }
            _ => self.publish(&mut upload),
        };
        match done {
            Ok(facts) => {
                self.uploads.retain(|claim| claim.name != upload.name);
                (self.count, self.bytes) = (self.count + 1, self.bytes + upload.size);
                if let Some(facts) = facts {
                    self.keep_hash(&facts, digest, limits);
                }
                Ok(digest)
            }
            Err(refused) => {
                self.discard(upload);
                Err(refused)
            }
        }
    }

    fn publish(&mut self, upload: &mut Upload) -> Result<Option<Facts>, Refused> {
        if self.permissions.sync {
            upload.with(|file| file.sync())?;
        }
        self.disk.rename(&upload.part, &upload.name, false).map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => exists(&upload.name),
            _ => disk(error),
        })?;
        if self.permissions.sync {
            // The file is there and whole whatever this says; whether it survives a power cut is what is in doubt.
            self.disk.sync().map_err(|error| refused("disk", format!("stored, but not synced: {error}")))?;
        }
        Ok(upload.with(|file| file.facts()).ok())
    }

    /// An upload that ended early: what came of it stays, if it says of what it is a part.
    pub(super) fn interrupt(&mut self, upload: Upload) {
        if upload.is_lost() {
            return;
        }
        let has_bytes = upload.at.max(upload.there) > 0;
        if upload.stored.is_some() || upload.digest.is_none() || !has_bytes {
            return self.discard(upload);
        }
        self.uploads.retain(|claim| claim.name != upload.name);
        self.parts.push(Part { file: upload.part, bytes: upload.at.max(upload.there), expires: upload.expires });
    }

    /// An upload that came to nothing: its part goes.
    pub(super) fn discard(&mut self, upload: Upload) {
        if upload.is_lost() {
            return;
        }
        self.uploads.retain(|claim| claim.name != upload.name);
        if upload.stored.is_none() && self.disk.remove(&upload.part).is_err_and(|error| !is_gone(&error)) {
            self.parts.push(Part { file: upload.part, bytes: upload.at.max(upload.there), expires: upload.expires });
        }
    }

    /// The smallest go first: many that cost their sender nothing must not drive out one that is nearly whole.
    fn drop_least(&mut self, limits: &Limits) {
        while self.parts.len() > limits.files_parts {
            let least = self.parts.iter().enumerate().min_by_key(|(_, part)| (part.bytes, part.expires));
            let Some((least, _)) = least else { return };
            let part = self.parts.swap_remove(least);
            let _ = self.disk.remove(&part.file); // if it stays, the next count finds it
        }
    }

    /// Begins to send a file from `offset` on.
    pub(super) fn get(&mut self, name: &str, offset: u64, limits: &Limits) -> Result<Download, Refused> {
        self.check_readers(limits)?;
        let job = self.job(name)?;
        let (facts, file) = (job.borrow().facts, job.borrow().file.clone());
        let size = facts.size;
        if offset > size {
            return Err(refused("offset", format!("{name} has {size} bytes")));
        }
        self.readers += 1;
        Ok(Download { name: name.to_string(), size, facts, file, at: offset, job: Some(job) })
    }

    /// The job of hashing a file as it is now: the one that others wait for already, or a new one.
    fn job(&mut self, name: &str) -> Result<Rc<RefCell<Job>>, Refused> {
        let facts = self.plain(name)?;
        self.jobs.retain(|job| job.strong_count() > 0);
        let mut jobs = self.jobs.iter().filter_map(Weak::upgrade);
        if let Some(job) = jobs.find(|job| job.borrow().may_be_joined(&facts)) {
            return Ok(job);
        }
        let mut file = self.disk.open(name, Access::Read).map_err(disk)?;
        let facts = file.facts().map_err(disk)?;
        let file = Rc::new(RefCell::new(file));
        let job = Rc::new(RefCell::new(Job { facts, file, hasher: Sha256::new(), at: 0, outcome: None }));
        self.jobs.push(Rc::downgrade(&job));
        Ok(job)
    }

    /// How many bytes each may hash that has a turn: together they hash no more than one of them would alone.
    fn share(&self, limits: &Limits) -> usize {
        let downloads: usize = self.jobs.iter().map(Weak::strong_count).sum();
        let many = downloads + self.uploads.len(); // not all of which hash
        (limits.files_budget_bytes / many.max(1)).max(1)
    }

    /// Hashes more of a file, at most a turn's share. Returns the hash once it is known: then its bytes can be read.
    pub(super) fn hash(&mut self, download: &mut Download, limits: &Limits) -> Result<Option<Digest>, Refused> {
        let Some(job) = &download.job else { return Ok(None) };
        let digest = match self.known(&download.facts) {
            Some(digest) => digest,
            None => {
                let (share, job) = (self.share(limits), &mut *job.borrow_mut());
                if job.outcome.is_none() {
                    job.go_on(&download.name, &mut self.scratch, share);
                    if let Some(Ok(digest)) = job.outcome {
                        self.remember(&job.facts, digest, limits);
                    }
                }
                match &job.outcome {
                    None => return Ok(None),
                    Some(outcome) => outcome.clone()?,
                }
            }
        };
        download.job = None;
        Ok(Some(digest))
    }

    /// The next bytes of a file whose hash is known, at most so many.
    pub(super) fn read(&mut self, download: &mut Download, most: usize, limits: &Limits) -> io::Result<&[u8]> {
        let left = usize::try_from(download.size - download.at).unwrap_or(usize::MAX);
        self.scratch.resize(limits.files_budget_bytes, 0);
        let most = most.min(left).min(self.scratch.len());
        let read = download.file.borrow_mut().read_at(download.at, &mut self.scratch[..most]);
        match read? {
            0 if most > 0 => Err(ErrorKind::UnexpectedEof.into()),
            count => {
                download.at += count as u64;
                Ok(&self.scratch[..count])
            }
        }
    }

    /// Begins to list the directory.
    pub(super) fn list(&mut self, now: Moment, limits: &Limits) -> Result<Box<dyn Listing>, Refused> {
        self.expire(now, limits);
        self.check_readers(limits)?;
        let listing = self.disk.list().map_err(disk)?;
        self.readers += 1;
        Ok(listing)
    }

    /// A download or a listing is over.
    pub(super) fn end_read(&mut self) {
        self.readers -= 1;
    }

    pub(super) fn delete(&mut self, name: &str) -> Result<(), Refused> {
        if !self.permissions.may_delete {
            return Err(refused("denied", "the server runs without --files-delete"));
        }
        let facts = self.plain(name)?;
        self.disk.remove(name).map_err(disk)?;
        // Somebody else may have put it there since the count.
        (self.count, self.bytes) = (self.count.saturating_sub(1), self.bytes.saturating_sub(facts.size));
        Ok(())
    }

    fn check_readers(&self, limits: &Limits) -> Result<(), Refused> {
        if self.readers < limits.files_readers {
            return Ok(());
        }
        Err(refused("busy", format!("{} downloads at a time", limits.files_readers)))
    }

    fn plain(&mut self, name: &str) -> Result<Facts, Refused> {
        match self.disk.facts(name).map_err(disk)? {
            None => Err(refused("missing", format!("there is no {name}"))),
            Some(facts) if !facts.is_plain => Err(not_plain(name)),
            Some(facts) => Ok(facts),
        }
    }

    fn known(&self, facts: &Facts) -> Option<Digest> {
        self.hashes.iter().find(|(of, _)| *of == version(facts)).map(|(_, digest)| *digest)
    }

    /// Remembers the hash of a file that others may write, whose facts these were before it was hashed: not if another change
    /// would not be seen.
    fn remember(&mut self, facts: &Facts, digest: Digest, limits: &Limits) {
        if has_settled(facts) {
            self.keep_hash(facts, digest, limits);
        }
    }

    fn keep_hash(&mut self, facts: &Facts, digest: Digest, limits: &Limits) {
        self.hashes.retain(|(of, _)| *of != version(facts));
        self.hashes.push_back((version(facts), digest));
        let surplus = self.hashes.len().saturating_sub(limits.files_hashes);
        self.hashes.drain(..surplus);
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("count", &self.count).field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

/// Whether another change would be seen. False of what has changed within the last second: that may be one step of the clock.
fn has_settled(facts: &Facts) -> bool {
    facts.age >= Duration::from_secs(1)
}

fn is_gone(error: &io::Error) -> bool {
    error.kind() == ErrorKind::NotFound
}

fn not_plain(name: &str) -> Refused {
    refused("name", format!("{name} is there and is no plain file"))
}

fn changing(name: &str) -> Refused {
    refused("busy", format!("{name} is being changed"))
}

fn exists(name: &str) -> Refused {
    refused("exists", format!("{name} is there already with other content"))
}

/// Hashes from `at` to `end`, but no more than `most` bytes; returns how far it came.
pub(super) fn hash_some(
    file: &mut dyn File,
    hasher: &mut Sha256,
    mut at: u64,
    end: u64,
    scratch: &mut Vec<u8>,
    most: usize,
) -> io::Result<u64> {
    let mut left = usize::try_from(end - at).unwrap_or(usize::MAX).min(most);
    scratch.resize(left.max(scratch.len()), 0);
    while left > 0 {
        match file.read_at(at, &mut scratch[..left])? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            count => {
                hasher.update(&scratch[..count]);
                (at, left) = (at + count as u64, left - count);
            }
        }
    }
    Ok(at)
}
