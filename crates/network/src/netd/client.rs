//! The daemon's half: has a netd when one is needed, gives it what is to be held, and gives it again to the next when it
//! dies.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use stdx::{Context, Error, Kind, Result};
use sys::socket::{connect_in, listen_in};

use super::NetdConfig;
use super::protocol::{self, Call, Change, Key, NAME, Reply, SOCKET, VERSION};
use crate::firewall::Keeper;

/// Longer than netd thinks about anything; one that is silent for so long will not speak again.
const DEADLINE: Duration = Duration::from_secs(10);
/// Between attempts to bring back what a dead netd held.
const AGAIN: Duration = Duration::from_secs(1);
const BACKLOG: i32 = 16;

/// A netd, running or not. Clones share it.
#[derive(Clone)]
pub(crate) struct Client {
    shared: Arc<Shared>,
}

struct Shared {
    config: Option<NetdConfig>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    link: Option<Link>,
    /// What netd has, or shall have: enough to tell another.
    held: BTreeMap<Key, (Change, Vec<OwnedFd>)>,
    /// Counts links, so that the end of an old one is not taken for that of a new one.
    generation: u64,
    /// On the way out: a netd that ends is not missed.
    closing: bool,
}

struct Link {
    socket: Arc<OwnedFd>,
    /// Ours, if it was we who executed it.
    child: Option<Child>,
}

impl Client {
    /// Finds the netd of a daemon before this one, and what it holds; executes none. Without a configuration there is
    /// never one, and whatever needs it is refused.
    pub(crate) fn open(config: Option<NetdConfig>) -> Result<Self> {
        let this = Self { shared: Arc::new(Shared { config, state: Mutex::default() }) };
        this.shared.find()?;
        Ok(this)
    }

    /// Can it keep anything?
    pub(crate) fn keeper(&self) -> Option<&dyn Keeper> {
        self.shared.config.as_ref().map(|_| self as &dyn Keeper)
    }

    /// Makes changes, in order; netd is executed if there is none.
    pub(crate) fn change(&self, changes: Vec<(Change, Vec<OwnedFd>)>) -> Result<()> {
        if changes.is_empty() {
            return Ok(());
        }
        let mut state = self.shared.state();
        let needed = changes.iter().any(|(change, _)| change.descriptors() > 0);
        let linked = state.link.is_some();
        let sent = match linked {
            true => copies(&changes)?,
            false => Vec::new(),
        };
        state.remember(changes);
        if !linked {
            // Names alone need nobody to be told, as long as nobody can ask.
            return if needed { self.shared.restore(&mut state) } else { Ok(()) };
        }
        match state.tell(sent) {
            Err(err) if err.kind() == Kind::Unavailable => {
                tracing::warn!(error = %err.chain(), "netd does not answer");
                self.shared.restore(&mut state)
            }
            told => told,
        }
    }

    /// Is this what is held; or, for a change that lets go of something, is there something to let go of?
    pub(crate) fn holds(&self, change: &Change) -> bool {
        let state = self.shared.state();
        let held = change.key().and_then(|key| state.held.get(&key));
        held.is_some_and(|(held, _)| change.lets_go() || held == change)
    }

    /// Everything held.
    pub(crate) fn held(&self) -> Vec<Change> {
        self.shared.state().held.values().map(|(change, _)| change.clone()).collect()
    }

    /// Does netd hold what it should, and nothing else? One sentence for each difference.
    pub(crate) fn difference(&self) -> Result<Vec<String>> {
        let state = self.shared.state();
        let there: BTreeMap<Key, Change> = match &state.link {
            Some(link) => {
                keyed(link.inventory()?).map(|(key, (change, _))| (key, change)).collect()
            }
            None => BTreeMap::new(),
        };
        let mut differences = Vec::new();
        let told = |change: &Change| change.descriptors() > 0;
        for (key, (change, _)) in state.held.iter().filter(|(_, (change, _))| told(change)) {
            if there.get(key) != Some(change) {
                differences.push(format!("netd does not hold {}", named(key)));
            }
        }
        let strange = there.keys().filter(|key| !state.held.contains_key(key));
        differences.extend(strange.map(|key| format!("netd holds {} for nobody", named(key))));
        Ok(differences)
    }

    /// The daemon ends, and netd goes on without it.
    pub(crate) fn leave(&self) {
        self.shared.state().closing = true;
    }

    /// The daemon ends, and netd with it: nobody is left who needs it.
    pub(crate) fn retire(&self) {
        let mut state = self.shared.state();
        state.closing = true;
        if let Some(link) = state.link.take() {
            if let Err(err) = link.ask(&Call::Retire, &[]) {
                tracing::warn!(error = %err.chain(), "netd does not end");
                return;
            }
            link.bury();
        }
        if let Some(config) = &self.shared.config {
            let _gone = std::fs::remove_file(config.dir.join(SOCKET));
        }
    }
}

impl Keeper for Client {
    /// A copy; it is kept on.
    fn take(&self, name: &str) -> Result<Option<OwnedFd>> {
        let state = self.shared.state();
        let kept = state.held.get(&Key::Kept(name.to_owned()));
        let copy = kept.and_then(|(_, fds)| fds.first()).map(OwnedFd::try_clone).transpose();
        copy.context(|| format!("cannot copy the descriptor {name}"))
    }

    fn keep(&self, name: &str, descriptor: BorrowedFd<'_>) -> Result<()> {
        let copy = descriptor
            .try_clone_to_owned()
            .context(|| format!("cannot copy the descriptor {name}"))?;
        self.change(vec![(Change::Keep(name.to_owned()), vec![copy])])
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connects to a netd that is there already, and learns what it holds. One of another version gives everything back
    /// and ends: it is restored in one of ours.
    fn find(self: &Arc<Self>) -> Result<()> {
        let Some(config) = &self.config else { return Ok(()) };
        let mut state = self.state();
        let Ok(socket) = connect_to(&config.dir) else { return Ok(()) };
        let link = Link { socket: Arc::new(socket), child: None };
        let found = link.greet().and_then(|(version, pid)| Ok((version, pid, link.inventory()?)));
        let (version, pid, held) = match found {
            Ok(found) => found,
            Err(err) => {
                tracing::warn!(error = %err.chain(), "there is a netd that does not answer");
                return Ok(());
            }
        };
        tracing::info!(pid, version, held = held.len(), "found netd");
        state.held = keyed(held).collect();
        if version == VERSION {
            return self.link(&mut state, link);
        }
        link.ask(&Call::Retire, &[])?;
        if state.needs_netd() { self.restore(&mut state) } else { Ok(()) }
    }

    /// Makes sure that there is a netd which holds everything that is held.
    fn restore(self: &Arc<Self>, state: &mut State) -> Result<()> {
        let config = self.config.as_ref().context(|| "this daemon has no netd".to_owned())?;
        if let Some(link) = state.link.take() {
            link.end();
        }
        let link = execute(config)?;
        let (version, _) = link.greet()?;
        if version != VERSION {
            return Err(Error::internal("netd is of another version than this daemon"));
        }
        self.link(state, link)?;
        let all = |state: &State| -> Result<Vec<_>> {
            // Keys are in the order in which things can be brought back.
            state.held.values().map(|(change, fds)| Ok((change.clone(), clones(fds)?))).collect()
        };
        let all = all(state)?;
        state.tell(all)
    }

    fn link(self: &Arc<Self>, state: &mut State, link: Link) -> Result<()> {
        state.generation += 1;
        let (socket, generation) = (Arc::clone(&link.socket), state.generation);
        state.link = Some(link);
        let shared = Arc::downgrade(self);
        thread::Builder::new()
            .name("netd-watch".to_owned())
            .spawn(move || watch(&socket, generation, &shared))
            .context(|| "cannot start a thread".to_owned())?;
        Ok(())
    }
}

/// Waits for the end of netd, and has another take its place as long as there is something to hold.
fn watch(socket: &OwnedFd, generation: u64, shared: &Weak<Shared>) {
    let mut ended = [PollFd::new(socket, PollFlags::RDHUP)];
    while matches!(poll(&mut ended, None), Err(rustix::io::Errno::INTR)) {}
    loop {
        let Some(shared) = shared.upgrade() else { return };
        let mut state = shared.state();
        if state.generation != generation || state.closing {
            return;
        }
        if let Some(link) = state.link.take() {
            tracing::warn!("netd has ended; starting another");
            link.end();
        }
        if !state.needs_netd() {
            return;
        }
        match shared.restore(&mut state) {
            Ok(()) => return,
            // Another attempt has its own watcher, once it was linked.
            Err(err) if state.generation != generation => {
                tracing::error!(error = %err.chain(), "cannot give netd what it held");
                return;
            }
            Err(err) => tracing::error!(error = %err.chain(), "cannot start netd again"),
        }
        drop(state);
        drop(shared);
        pause(AGAIN);
    }
}

fn pause(time: Duration) {
    let (_sender, never) = std::sync::mpsc::channel::<()>();
    // Nobody sends: it is the time that counts.
    let _timeout = never.recv_timeout(time);
}

impl State {
    /// Is there anything that only a process can hold?
    fn needs_netd(&self) -> bool {
        self.held.values().any(|(_, descriptors)| !descriptors.is_empty())
    }

    fn remember(&mut self, changes: Vec<(Change, Vec<OwnedFd>)>) {
        for (change, descriptors) in changes {
            let Some(key) = change.key() else {
                if change == Change::Aside {
                    self.held.retain(|key, _| !matches!(key, Key::Zone(_) | Key::Member(..)));
                }
                continue;
            };
            if change.lets_go() {
                self.held.remove(&key);
                if let Key::Zone(zone) = &key {
                    self.held.retain(|other, _| !matches!(other, Key::Member(of, _) if of == zone));
                }
            } else if let Change::Reseat(sandbox) = change {
                if let Some((served, _)) = self.held.get_mut(&key) {
                    *served = Change::Serve(sandbox);
                }
            } else {
                self.held.insert(key, (change, descriptors));
            }
        }
    }

    fn tell(&mut self, changes: Vec<(Change, Vec<OwnedFd>)>) -> Result<()> {
        let link = self.link.as_ref().expect("who tells has looked");
        for (changes, descriptors) in protocol::messages(changes)? {
            link.ask(&Call::Change(changes), &descriptors)?;
        }
        Ok(())
    }
}

fn copies(changes: &[(Change, Vec<OwnedFd>)]) -> Result<Vec<(Change, Vec<OwnedFd>)>> {
    changes.iter().map(|(change, fds)| Ok((change.clone(), clones(fds)?))).collect()
}

fn clones(descriptors: &[OwnedFd]) -> Result<Vec<OwnedFd>> {
    let copied: io::Result<Vec<_>> = descriptors.iter().map(OwnedFd::try_clone).collect();
    copied.context(|| "cannot copy a descriptor".to_owned())
}

fn keyed(held: Vec<(Change, Vec<OwnedFd>)>) -> impl Iterator<Item = (Key, (Change, Vec<OwnedFd>))> {
    held.into_iter().filter_map(|(change, fds)| Some((change.key()?, (change, fds))))
}

fn named(key: &Key) -> String {
    match key {
        Key::Kept(name) => format!("the descriptor {name}"),
        Key::Zone(id) => format!("the names of network {id}"),
        Key::Member(zone, id) => format!("endpoint {id} of network {zone}"),
        Key::Sandbox(id) => format!("the name server of container {id}"),
        Key::Port(place) => format!("port {}/{}", place.address, place.protocol.as_str()),
    }
}

impl Link {
    fn greet(&self) -> Result<(u32, u32)> {
        match self.exchange(&Call::Hello { version: VERSION }, &[])?.0 {
            Reply::Hello { version, pid } => Ok((version, pid)),
            other => Err(unexpected(&other)),
        }
    }

    fn inventory(&self) -> Result<Vec<(Change, Vec<OwnedFd>)>> {
        let mut held = Vec::new();
        let mut next = self.exchange(&Call::Inventory, &[])?;
        loop {
            match next {
                (Reply::Held(change), fds) => held.push((change, fds)),
                (Reply::Done, _) => return Ok(held),
                (other, _) => return Err(unexpected(&other)),
            }
            next = self.hear()?;
        }
    }

    fn ask(&self, call: &Call, descriptors: &[OwnedFd]) -> Result<()> {
        match self.exchange(call, descriptors)?.0 {
            Reply::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    fn exchange(&self, call: &Call, descriptors: &[OwnedFd]) -> Result<(Reply, Vec<OwnedFd>)> {
        let fds: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
        protocol::send(&*self.socket, call, &fds)
            .map_err(|err| Error::unavailable("cannot reach netd").caused_by(err))?;
        self.hear()
    }

    fn hear(&self) -> Result<(Reply, Vec<OwnedFd>)> {
        let lost = || Error::unavailable("netd has gone");
        protocol::receive(&*self.socket).map_err(|err| lost().caused_by(err))?.ok_or_else(lost)
    }

    /// Ends one that is not trusted any more.
    fn end(mut self) {
        if let Some(child) = &mut self.child {
            // It is our child and has not been waited for: the number is its.
            let _dead = child.kill();
        }
        self.bury();
    }

    fn bury(mut self) {
        drop(self.socket);
        if let Some(mut child) = self.child.take() {
            // It ends now, or was killed.
            let _reaped = child.wait();
        }
    }
}

fn unexpected(reply: &Reply) -> Error {
    match reply {
        Reply::Failed(why) => Error::internal(format!("netd: {why}")),
        other => Error::internal(format!("netd answered {other:?}")),
    }
}

/// Executes netd. Its socket is made here, so that whoever connects waits for it to be ready instead of failing.
fn execute(config: &NetdConfig) -> Result<Link> {
    let failed = || "cannot start netd".to_owned();
    let socket = listen_in(&config.dir, SOCKET, BACKLOG).context(failed)?;
    let child = Command::new(&config.program)
        .arg0(NAME)
        .arg(&config.dir)
        .args(config.stand_in.map(|address| address.to_string()))
        .env_clear()
        .current_dir("/")
        .stdin(socket)
        // It outlives whoever reads the daemon's output.
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context(failed)?;
    let socket = connect_to(&config.dir).context(failed)?;
    Ok(Link { socket: Arc::new(socket), child: Some(child) })
}

fn connect_to(dir: &Path) -> io::Result<OwnedFd> {
    connect_in(dir, SOCKET, DEADLINE)
}

pub(super) fn pid(dir: &Path) -> Option<u32> {
    let link = Link { socket: Arc::new(connect_to(dir).ok()?), child: None };
    link.greet().ok().map(|(_, pid)| pid)
}

/// Ends whichever netd listens there, whatever it holds.
pub(super) fn end(dir: &Path) -> Result<()> {
    let Ok(socket) = connect_to(dir) else { return Ok(()) };
    Link { socket: Arc::new(socket), child: None }.ask(&Call::Retire, &[])
}
