//! The container's first process, from its birth to `execve`: the child's side of [`create`](crate::create).
//!
//! It is a copy of its parent in new namespaces. It sets up everything as root, reports that it is ready, and waits for the
//! word to start. Whatever goes wrong it tells its parent in a sentence and ends.

pub(crate) mod reaper;

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

use oci::runtime::{Hooks, NamespaceType, Spec, State, Status};
use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::process::{DumpableBehavior, Signal, umask};
use stdx::{Context, Error, Result};
use sys::process::{CloneFlags, exit_now};

use crate::channel::{Child, Message, wait_for_go};
use crate::create::{Options, Stdio, Wait};
use crate::process::{self, Program};
use crate::rootfs::{Assembly, Sources};
use crate::spawn::Namespaces;
use crate::terminal::Terminal;
use crate::{cgroup, hooks, rootfs, spawn, sysctl};

/// Everything the child brings along from its parent.
#[derive(Debug)]
pub(crate) struct Init<'a> {
    pub id: &'a str,
    pub bundle: &'a std::path::Path,
    pub spec: &'a Spec,
    pub process: &'a process::Plan,
    pub rootfs: &'a rootfs::Plan,
    /// None where only root of the new user namespace can open them.
    pub sources: Option<Sources>,
    pub namespaces: &'a Namespaces,
    pub joiner: Option<cgroup::Joiner>,
    pub location: &'a cgroup::Location,
    pub stdio: &'a Stdio,
    pub options: &'a Options,
    pub parent: Child,
    /// Where the word to start comes from, and where a failure after it goes; the parent's socket where none.
    pub gate: Option<Gate>,
}

/// The two FIFOs of [`Wait::StateDir`](crate::create::Wait).
#[derive(Debug)]
pub(crate) struct Gate {
    pub start: OwnedFd,
    pub report: OwnedFd,
}

/// Never comes back.
pub(crate) fn run(init: Init) -> ! {
    let Init { parent, gate, .. } = &init;
    // Duplicates for the last words; close-on-exec like the originals.
    let (last_words, late_words) = (
        parent.0.try_clone().map(Child),
        gate.as_ref().and_then(|gate| gate.report.try_clone().ok()).map(Child),
    );
    let mut ready = false;
    // A panic must not climb into what the parent was doing when it made this copy.
    let prepared = catch_unwind(AssertUnwindSafe(|| init.prepare(&mut ready)));
    let failure = match prepared {
        Ok(Ok(never)) => match never {},
        Ok(Err(failure)) => failure,
        Err(_) => Error::internal("the container's init panicked"),
    };
    let child = match (ready, late_words, last_words) {
        (true, Some(late), _) => Some(late),
        (_, _, last) => last.ok(),
    };
    // If nobody listens any more, there is nobody to tell.
    let _told = child.map(|child| child.tell(&Message::Failed(failure)));
    exit_now(1)
}

/// What a function that only fails answers otherwise.
#[derive(Debug)]
pub(crate) enum Never {}

impl Init<'_> {
    fn prepare(mut self, ready: &mut bool) -> Result<Never> {
        sys::signal::reset_all();
        sys::signal::set_mask(&sys::signal::Set::empty())
            .context(|| "cannot unblock signals".to_owned())?;
        if self.options.die_with_parent {
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        }
        let proc = sysctl::open_proc()?;
        let labels = self.process.prepare()?;
        self.enter_namespaces()?;
        rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
            .context(|| "unable to become undumpable".to_owned())?;
        umask(Mode::empty());

        let sources = match self.sources.take() {
            Some(sources) => sources,
            None => Sources::open(self.rootfs, Vec::new(), None)?,
        };
        let assembly = Assembly::new(self.rootfs, sources, self.location)?;
        self.name_host()?;
        sysctl::write(assembly.proc.as_ref(), &proc, &self.spec.linux_or_default().sysctl)?;
        drop(proc);
        self.run_hooks()?;
        let terminal = self.open_terminal(&assembly)?;
        assembly.finish()?;
        self.install_stdio(terminal)?;

        let identity = self.process.identify()?;
        self.process.confine(&identity, &labels, &self.parent)?;
        if self.options.die_with_parent {
            // A change of user clears it.
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        }
        let program = self.find_program()?;
        let (argv, env) = (self.process.argv(), self.process.env(&identity)?);

        self.parent.tell(&Message::Ready)?;
        *ready = true;
        match (&self.gate, self.options.wait) {
            (Some(gate), _) => wait_for_go(gate.start.as_fd())?,
            (None, Wait::Nobody) => {}
            (None, _) => self.parent.wait()?,
        }
        self.run_start_hooks()?;
        if self.options.reaper {
            return Err(reaper::run(&self, &program, &argv, &env));
        }
        self.process.filter_late(&self.parent)?;
        sys::process::close_on_exec_from(3 + self.options.preserve_fds)
            .context(|| "cannot close descriptors".to_owned())?;
        Err(process::execute(&program, &argv, &env))
    }

    fn enter_namespaces(&self) -> Result<()> {
        if self.namespaces.makes(NamespaceType::User) {
            // The parent writes who we are.
            self.parent.wait()?;
            spawn::become_root()?;
        }
        if let Some(joiner) = &self.joiner {
            // The v2 group it was born in (CLONE_INTO_CGROUP).
            joiner.join_v1()?;
        }
        self.namespaces.enter()?;
        if self.namespaces.makes(NamespaceType::Cgroup) {
            // Now that we are in the container's group, which becomes its root.
            sys::ns::unshare(CloneFlags::NEWCGROUP)
                .context(|| "cannot create a cgroup namespace".to_owned())?;
        }
        rustix::process::setsid().context(|| "setsid".to_owned())?;
        if !self.options.keep_keyring {
            join_keyring(self.id)?;
        }
        if self.namespaces.makes(NamespaceType::Network) {
            sys::net::loopback_up().context(|| "cannot bring the loopback device up".to_owned())?;
        }
        Ok(())
    }

    fn name_host(&self) -> Result<()> {
        if !self.spec.hostname.is_empty() {
            rustix::system::sethostname(self.spec.hostname.as_bytes())
                .context(|| "sethostname".to_owned())?;
        }
        if !self.spec.domainname.is_empty() {
            rustix::system::setdomainname(self.spec.domainname.as_bytes())
                .context(|| "setdomainname".to_owned())?;
        }
        Ok(())
    }

    fn hooks(&self) -> Option<&Hooks> {
        self.spec.hooks.as_ref()
    }

    fn run_hooks(&self) -> Result<()> {
        let Some(hooks) = self.hooks() else { return Ok(()) };
        if !hooks.prestart.is_empty() || !hooks.create_runtime.is_empty() {
            self.parent.tell(&Message::Hooks)?;
            self.parent.wait()?;
        }
        if hooks.create_container.is_empty() {
            return Ok(());
        }
        hooks::run("createContainer", &hooks.create_container, &self.state(Status::Creating))
    }

    fn run_start_hooks(&self) -> Result<()> {
        match self.hooks() {
            Some(hooks) if !hooks.start_container.is_empty() => {
                hooks::run("startContainer", &hooks.start_container, &self.state(Status::Created))
            }
            _ => Ok(()),
        }
    }

    fn state(&self, status: Status) -> State {
        State {
            oci_version: oci::runtime::VERSION.to_owned(),
            id: self.id.to_owned(),
            status,
            pid: Some(rustix::process::getpid().as_raw_nonzero().get()),
            bundle: self.bundle.to_owned(),
            annotations: self.spec.annotations.clone(),
        }
    }

    fn open_terminal(&self, assembly: &Assembly) -> Result<Option<OwnedFd>> {
        if !matches!(self.stdio, Stdio::Terminal) {
            return Ok(None);
        }
        let terminal = match &assembly.devpts {
            Some(devpts) => Terminal::open_in(devpts)?,
            None => Terminal::open_below(&assembly.root)?,
        };
        if let Some(size) = self.process.process().console_size {
            terminal.resize(size)?;
        }
        assembly.mount_console(&terminal.terminal)?;
        self.parent.tell(&Message::Terminal(terminal.master))?;
        Ok(Some(terminal.terminal))
    }

    fn install_stdio(&self, terminal: Option<OwnedFd>) -> Result<()> {
        match (terminal, self.stdio) {
            (Some(terminal), _) => crate::terminal::control(&terminal),
            (None, Stdio::Fds { stdin, stdout, stderr }) => {
                sys::fd::install_stdio(stdin.as_fd(), stdout.as_fd(), stderr.as_fd())
                    .context(|| "cannot install the standard streams".to_owned())?;
                own_nulls()
            }
            (None, Stdio::Inherit | Stdio::Terminal) => own_nulls(),
        }
    }

    fn find_program(&self) -> Result<Program> {
        let name =
            self.process.argv.first().ok_or_else(|| Error::invalid("args must not be empty"))?;
        Program::find(name, self.process.search_path())
    }
}

/// The container's `/dev/null` for the host's: who asks what a descriptor is (CRIU does) finds a file of the container's.
fn own_nulls() -> Result<()> {
    let words = || "cannot install the standard streams".to_owned();
    if let Some(null) = own_null(rustix::stdio::stdin()) {
        rustix::stdio::dup2_stdin(null).context(words)?;
    }
    if let Some(null) = own_null(rustix::stdio::stdout()) {
        rustix::stdio::dup2_stdout(null).context(words)?;
    }
    if let Some(null) = own_null(rustix::stdio::stderr()) {
        rustix::stdio::dup2_stderr(null).context(words)?;
    }
    Ok(())
}

fn own_null(stream: BorrowedFd) -> Option<OwnedFd> {
    let is_null = |fd: BorrowedFd| {
        rustix::fs::fstat(fd).is_ok_and(|found| {
            FileType::from_raw_mode(found.st_mode).is_char_device()
                && found.st_rdev == rustix::fs::makedev(1, 3)
        })
    };
    let open = || {
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NOCTTY | OFlags::CLOEXEC;
        rustix::fs::openat(CWD, "/dev/null", flags, Mode::empty()).ok()
    };
    is_null(stream).then(open).flatten().filter(|own| is_null(own.as_fd()))
}

/// A session keyring of the container's own: keys of the host's session are none of its business. A kernel without keyrings
/// has nothing to keep from it.
pub(crate) fn join_keyring(id: &str) -> Result<()> {
    let name = CString::new(format!("_ses.{id}"))
        .map_err(|_| Error::invalid("the id contains a null byte"))?;
    match sys::keyring::join_session(&name) {
        Ok(key) => {
            // Best done, not needed: programs of other users in there would only find no session keyring.
            let _searchable = sys::keyring::allow_search(key);
            Ok(())
        }
        Err(err) if matches!(err.raw_os_error(), Some(38 | 1)) => Ok(()),
        Err(err) => Err(err).context(|| "unable to join session keyring".to_owned()),
    }
}
