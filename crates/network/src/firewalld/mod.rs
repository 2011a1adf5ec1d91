//! Where firewalld judges what the host forwards, our bridges are in a zone of its that accepts: what comes to containers is
//! judged by our own table. One thread speaks with it, and nobody else waits for it longer than a moment.

mod zone;

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use stdx::{Context, Result};

use crate::networks::Core;
use dbus::{Answer, BUS, Bus, Kind, Message, Value, socket_in};
pub(crate) use zone::ZONE;

/// What whoever makes or removes a bridge waits for at most.
const MOMENT: Duration = Duration::from_secs(1);
/// What an answer may take: a reload of many rules is slow.
const PATIENCE: Duration = Duration::from_secs(25);

/// What is known of firewalld.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Standing {
    #[default]
    Absent,
    /// It is there, and something does not work: what.
    Silent(String),
    /// Our bridges are in its zone, but for those that somebody has put into others.
    Follows { elsewhere: BTreeMap<String, String> },
}

/// Speaks with firewalld until it is dropped.
pub(crate) struct Firewalld {
    shared: Arc<Shared>,
    /// Written to when there is something to do, closed to stop. `None` where nobody is spoken with.
    wake: Mutex<Option<OwnedFd>>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// How often something has changed, and which of these changes have been seen to.
    asked: u64,
    done: u64,
    standing: Standing,
    /// The last who waited waited in vain.
    late: bool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where the bus is that this address names.
pub(crate) fn bus_at(address: &str) -> Option<PathBuf> {
    let socket = socket_in(address);
    if socket.is_none() {
        tracing::warn!(
            address,
            "the system bus has no socket in the file system: firewalld is not spoken with"
        );
    }
    socket
}

impl Firewalld {
    /// One that speaks with nobody.
    pub(crate) fn none() -> Self {
        Self { shared: Arc::default(), wake: Mutex::new(None) }
    }

    /// Begins to speak with whoever is firewalld on the bus of this socket, now or later.
    pub(crate) fn start(&self, core: &Arc<Core>, socket: PathBuf) -> Result<()> {
        let failed = || "cannot speak with firewalld".to_owned();
        let (woken, wake) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).context(failed)?;
        let core = Arc::downgrade(core);
        let shared = Arc::clone(&self.shared);
        let speaker = Speaker {
            core,
            shared,
            socket,
            woken,
            bus: None,
            bound: BTreeSet::new(),
            may_reload: true,
            said: BTreeSet::new(),
        };
        // Not waited for when we end: it may be waiting for somebody who hangs.
        thread::Builder::new()
            .name("firewalld".to_owned())
            .spawn(move || speaker.work())
            .context(failed)?;
        *self.wake() = Some(wake);
        Ok(())
    }

    /// Bridges have come or gone: returns when firewalld knows, or after a moment.
    pub(crate) fn follow(&self) {
        if self.wake().is_none() {
            return;
        }
        let mut state = self.shared.state();
        state.asked += 1;
        let mine = state.asked;
        self.poke();
        if state.late {
            return;
        }
        let waiting = |state: &mut State| state.done < mine;
        let waited = self.shared.changed.wait_timeout_while(state, MOMENT, waiting);
        let (mut state, outcome) = waited.unwrap_or_else(PoisonError::into_inner);
        if outcome.timed_out() && !std::mem::replace(&mut state.late, true) {
            tracing::warn!(
                "firewalld does not answer: going on, and not waiting for it any more until it does"
            );
        }
    }

    /// Somebody has changed the host's rules: it may be firewalld that has come.
    pub(crate) fn glimpse(&self) {
        let mut state = self.shared.state();
        if state.standing == Standing::Absent {
            state.asked += 1;
            self.poke();
        }
    }

    pub(crate) fn standing(&self) -> Standing {
        self.shared.state().standing.clone()
    }

    fn wake(&self) -> MutexGuard<'_, Option<OwnedFd>> {
        self.wake.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A full pipe wakes as well as one more byte would.
    fn poke(&self) {
        if let Some(wake) = &*self.wake() {
            let _full = rustix::io::write(wake, &[1]);
        }
    }
}

/// The thread's own.
struct Speaker {
    core: Weak<Core>,
    shared: Arc<Shared>,
    socket: PathBuf,
    woken: OwnedFd,
    bus: Option<Bus>,
    /// Bridges that are in the zone because of us.
    bound: BTreeSet<String>,
    may_reload: bool,
    /// Every complaint is made once.
    said: BTreeSet<String>,
}

impl Speaker {
    fn work(mut self) {
        loop {
            let asked = self.shared.state().asked;
            let Some(core) = self.core.upgrade() else { return };
            let standing = match self.look(&core) {
                Ok(standing) => standing,
                Err(err) => {
                    let late = self.shared.state().late;
                    let reason = err.chain();
                    if !late {
                        self.complain(&format!("firewalld does not know of our bridges: {reason}"));
                    }
                    Standing::Silent(reason)
                }
            };
            self.tell(&core, &standing);
            // The last to hold it must not be us while somebody waits.
            drop(core);
            {
                let mut state = self.shared.state();
                state.late &= matches!(standing, Standing::Silent(_));
                (state.done, state.standing) = (asked, standing);
            }
            self.shared.changed.notify_all();
            match self.wait() {
                Next::End => return,
                Next::Look => {}
                Next::Mend => {
                    let Some(core) = self.core.upgrade() else { return };
                    if let Err(err) = core.permit() {
                        tracing::error!(err = %err.chain(), "firewalld has changed the firewall, and it cannot be mended");
                    }
                }
            }
        }
    }

    /// Has firewalld know of all our bridges, if it is there.
    fn look(&mut self, core: &Core) -> Result<Standing> {
        if self.bus.is_none() {
            self.bus = connect(&self.socket)?;
        }
        let Some(bus) = &mut self.bus else { return Ok(Standing::Absent) };
        let spoken = speak(bus, &core.bridge_names(), &mut self.bound, &mut self.may_reload);
        match spoken {
            Ok(Some(elsewhere)) => Ok(Standing::Follows { elsewhere }),
            Ok(None) => Ok(Standing::Absent),
            Err(err) => Err(err),
        }
    }

    /// Says what somebody has to know.
    fn tell(&mut self, core: &Core, standing: &Standing) {
        match standing {
            Standing::Absent if core.firewall().meets_firewalld() => self.complain(
                "firewalld judges what this host forwards, and is not on the system bus: if containers reach nothing, have \
                 it trust their bridges (firewall-cmd --permanent --zone=trusted --add-interface=BRIDGE, then \
                 firewall-cmd --reload)",
            ),
            Standing::Absent | Standing::Silent(_) => {}
            Standing::Follows { elsewhere } => {
                for (bridge, zone) in elsewhere {
                    self.complain(&format!(
                        "somebody has put {bridge} into firewalld's zone {zone}, not {ZONE}: it stays there, and what \
                         {zone} refuses does not reach its containers"
                    ));
                }
            }
        }
    }

    fn complain(&mut self, what: &str) {
        if self.said.insert(what.to_owned()) {
            tracing::warn!("{what}");
        }
    }

    /// Until there is something to do.
    fn wait(&mut self) -> Next {
        // Signals may have come while we waited for an answer.
        let mut spoke = true;
        loop {
            if let Some(bus) = self.bus.as_mut().filter(|_| spoke) {
                match bus.heard() {
                    Ok(messages) => {
                        if messages.iter().any(is_a_new_firewalld) {
                            // It knows nothing of what its predecessor was told.
                            self.bound.clear();
                            self.may_reload = true;
                        }
                        if messages.iter().any(concerns) {
                            return Next::Mend;
                        }
                    }
                    Err(err) => {
                        tracing::debug!(err = %err.chain(), "the system bus is gone");
                        self.bus = None;
                        self.bound.clear();
                        return Next::Look;
                    }
                }
            }
            let mut polled = vec![PollFd::new(&self.woken, PollFlags::IN)];
            polled.extend(
                self.bus.as_ref().map(|bus| PollFd::from_borrowed_fd(bus.as_fd(), PollFlags::IN)),
            );
            match poll(&mut polled, None) {
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                Err(err) => {
                    tracing::error!(%err, "firewalld is not listened to any more");
                    return Next::End;
                }
            }
            let woken = !polled[0].revents().is_empty();
            spoke = polled.get(1).is_some_and(|bus| !bus.revents().is_empty());
            drop(polled);
            if woken {
                let mut buffer = [0; 64];
                match rustix::io::read(&self.woken, &mut buffer) {
                    Ok(0) => return Next::End,
                    _ => return Next::Look,
                }
            }
        }
    }
}

enum Next {
    Look,
    /// Look, and set our own rules anew before.
    Mend,
    End,
}

fn connect(socket: &Path) -> Result<Option<Bus>> {
    let Some(mut bus) = Bus::connect(socket, PATIENCE)? else { return Ok(None) };
    for rule in [
        format!("type='signal',sender='{0}',interface='{0}',member='Reloaded'", zone::NAME),
        format!(
            "type='signal',sender='{BUS}',interface='{BUS}',member='NameOwnerChanged',arg0='{}'",
            zone::NAME
        ),
    ] {
        bus.ask_bus("AddMatch", &[Value::Text(&rule)])?.ok("the system bus tells us nothing")?;
    }
    Ok(Some(bus))
}

/// `None`: there is no firewalld on the bus.
fn speak(
    bus: &mut Bus,
    bridges: &BTreeSet<String>,
    bound: &mut BTreeSet<String>,
    may_reload: &mut bool,
) -> Result<Option<BTreeMap<String, String>>> {
    if let Answer::Refused { .. } = bus.ask_bus("GetNameOwner", &[Value::Text(zone::NAME)])? {
        return Ok(None);
    }
    zone::prepare(bus, may_reload)?;
    zone::bind(bus, bridges, bound).map(Some)
}

fn is_a_new_firewalld(message: &Message) -> bool {
    message.kind == Kind::Signal && message.member == "NameOwnerChanged"
}

/// Signals are those that we asked for; an answer is one to a question that we gave up.
fn concerns(message: &Message) -> bool {
    match message.kind {
        Kind::Signal => matches!(message.member.as_str(), "NameOwnerChanged" | "Reloaded"),
        Kind::Answer | Kind::Refusal => true,
        Kind::Call => false,
    }
}

impl Core {
    /// All bridges of networks, ours or not.
    fn bridge_names(&self) -> BTreeSet<String> {
        let model = self.model();
        let bridges = model.networks.values().filter_map(|network| network.bridge.as_ref());
        bridges.map(|bridge| bridge.name.clone()).collect()
    }
}
