//! One table of ours, made from what the records say, and peace with other tables.
//!
//! Start reading at `rules.rs`, which decides; `view.rs` is what it decides from, `ruleset.rs` the value it makes, and
//! `nft.rs` has the kernel do it. `foreign.rs` lives with what others decided.

mod encode;
#[cfg(test)]
mod examples;
mod foreign;
pub(crate) mod grants;
mod leash;
mod monitor;
mod nft;
mod rules;
mod ruleset;
mod user_chain;
pub(crate) mod view;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use stdx::{Error, Result};

use crate::config::NetworkConfig;
use crate::doctor::{Judge, Refusals, legacy_filters};
use crate::netlink::Socket;
use crate::watch::Source;
use nft::{Change, Ownership};
use ruleset::{Element, Ruleset};
use view::{Choices, Localhost, Port, Rules, View};

/// Who keeps a descriptor while no daemon runs.
pub trait Keeper: Send + Sync {
    /// What a daemon before us left here under this name.
    fn take(&self, name: &str) -> Result<Option<OwnedFd>>;

    fn keep(&self, name: &str, descriptor: BorrowedFd<'_>) -> Result<()>;
}

/// The socket that our table belongs to, as the keeper knows it.
pub(crate) const KEPT: &str = "firewall";

/// What is there, for whoever wants to explain it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Survey {
    /// What leads to published ports, by the name of its set.
    pub(crate) elements: BTreeSet<(&'static str, Vec<u8>)>,
    /// Other people's chains: whether it is IPv6 that they judge.
    pub(crate) judges: Vec<(bool, Judge)>,
    pub(crate) refusals: Vec<Refusals>,
    /// Nobody can own a table here.
    pub(crate) unowned: bool,
    pub(crate) legacy: bool,
    pub(crate) ufw: bool,
}

/// The elements that lead to a published port, as the kernel tells of them.
pub(crate) fn elements_of_port(
    port: &Port,
    choices: &Choices,
) -> impl Iterator<Item = (&'static str, Vec<u8>)> + use<> {
    let elements = rules::of_port(port, choices).into_iter();
    elements
        .flat_map(|(set, element)| encode::element(&element).into_iter().map(move |one| (set, one)))
}

/// The firewall of this daemon; nothing at all with `--iptables=false` and `--ip6tables=false`.
pub(crate) struct Firewall {
    table: String,
    choices: Choices,
    /// `None` where we have no rules; why, where we cannot have any.
    kernel: Option<Result<Kernel, String>>,
    /// What the kernel was told last; `None` before, and after a failure.
    told: Option<Told>,
    foreign: foreign::Warned,
    user_chain: user_chain::UserChain,
}

struct Told {
    ruleset: Ruleset,
    frames: Ruleset,
    /// What they were made from.
    view: View,
}

impl Told {
    /// Does this need the same rules, and only other elements of what they refer to?
    fn has_rules_for(&self, view: &View) -> bool {
        let something = |view: &View| !(view.bridges.is_empty() && view.overlays.is_empty());
        something(&self.view)
            && something(view)
            && rules::Kinds::of(&self.view) == rules::Kinds::of(view)
            && self.view.guards == view.guards
    }
}

struct Kernel {
    socket: Socket,
    ownership: Ownership,
    /// Somebody else has the socket, too.
    kept: bool,
}

impl Firewall {
    /// A kernel without a firewall is a failure only when there is something to guard.
    pub(crate) fn open(config: &NetworkConfig, keeper: Option<&dyn Keeper>) -> Self {
        if config.iptables || config.ip6tables {
            let kernel = Kernel::open(keeper).map_err(|err| err.chain());
            return Self::with(config, Some(kernel));
        }
        // A daemon before this one was to have rules: they would judge what they do not know, and nobody would tell them.
        // A kernel that can have none has none.
        if let Ok(mut kernel) = Kernel::open(keeper)
            && let Err(err) = kernel.clear(&config.table())
        {
            tracing::warn!(err = %err.chain(), "cannot take away the rules of an earlier daemon");
        }
        Self::with(config, None)
    }

    fn with(config: &NetworkConfig, kernel: Option<Result<Kernel, String>>) -> Self {
        let rules = |wanted| if wanted { Rules::Ours } else { Rules::Nobodys };
        let owned = kernel
            .as_ref()
            .and_then(|kernel| kernel.as_ref().ok())
            .is_some_and(|kernel| kernel.ownership != Ownership::Shared);
        let choices = Choices {
            ipv4: rules(config.iptables),
            ipv6: rules(config.ip6tables),
            localhost: if owned { Localhost::Kernel } else { Localhost::Proxy },
            direct_routing: config.allow_direct_routing,
            accepted_mark: config.accept_fwmark,
            ..Choices::default()
        };
        Self {
            table: config.table(),
            choices,
            kernel,
            told: None,
            foreign: foreign::Warned::default(),
            user_chain: user_chain::UserChain::default(),
        }
    }

    /// What was decided for the whole host.
    pub(crate) fn choices(&self) -> Choices {
        self.choices.clone()
    }

    /// Has somebody who outlives the daemon hold our table, now that there is something to guard.
    pub(crate) fn hold(&mut self, keeper: Option<&dyn Keeper>) -> Result<()> {
        let (Some(Ok(kernel)), Some(keeper)) = (&mut self.kernel, keeper) else { return Ok(()) };
        if !kernel.kept && kernel.ownership != Ownership::Shared {
            keeper.keep(KEPT, kernel.socket.as_fd())?;
            kernel.kept = true;
        }
        Ok(())
    }

    /// Tells of changes by others, where we have rules.
    pub(crate) fn watch(&self, changed: impl Fn() + Send + 'static) -> Result<Option<Source>> {
        let Some(Ok(kernel)) = &self.kernel else { return Ok(None) };
        monitor::source(self.table.clone(), kernel.socket.port()?, changed).map(Some)
    }

    /// Makes the rules be as they should, whatever the kernel has; touches nothing where they are.
    pub(crate) fn ensure(&mut self, view: &View) -> Result<()> {
        let Some(Kernel { socket, ownership, .. }) = guarding(&mut self.kernel, view)? else {
            return Ok(());
        };
        let ruleset = rules::render(&self.table, view);
        let frames = leash::of_frames(&self.table, view);
        self.told = None;
        // Who somebody is, before what he may.
        for ruleset in [&frames, &ruleset] {
            let differences = nft::difference(socket, ruleset, *ownership)?;
            if !differences.is_empty() {
                tracing::debug!(?differences, "setting the firewall");
                nft::apply(socket, ruleset, *ownership)?;
            }
        }
        self.user_chain.ensure(socket, &view.choices);
        foreign::let_through(socket, &self.table, &view.bridges, &mut self.foreign)?;
        self.told = Some(Told { ruleset, frames, view: view.clone() });
        Ok(())
    }

    /// Makes the rules be as they should, given that the kernel has what it was told: costs what differs.
    pub(crate) fn adjust(&mut self, view: &View) -> Result<()> {
        let Some(Kernel { socket, .. }) = guarding(&mut self.kernel, view)? else { return Ok(()) };
        let Some(told) = self.told.take() else { return self.ensure(view) };
        let adjusted = match told.has_rules_for(view) {
            true => adjust_elements(socket, told, view),
            false => adjust_guards(socket, &self.table, &told, view),
        };
        let Some(told) = adjusted else { return self.ensure(view) };
        foreign::let_through(socket, &self.table, &view.bridges, &mut self.foreign)?;
        self.told = Some(told);
        Ok(())
    }

    /// Opens these ports and closes those, at a cost that does not depend on how many there are. `all` is asked for
    /// where the kernel does not have what it was told.
    pub(crate) fn publish(
        &mut self,
        gone: &[Port],
        new: &[Port],
        all: impl FnOnce() -> View,
    ) -> Result<()> {
        let Some(Ok(Kernel { socket, .. })) = &mut self.kernel else { return Ok(()) };
        let told = self.told.take().filter(|told| !told.ruleset.is_empty());
        let Some(mut told) = told else { return self.ensure(&all()) };
        let elements = |port: &Port| rules::of_port(port, &self.choices);
        let gone =
            gone.iter().filter(|port| told.view.ports.remove(*port)).flat_map(elements).collect();
        let new: Vec<_> = new
            .iter()
            .filter(|port| told.view.ports.insert((*port).clone()))
            .flat_map(elements)
            .collect();
        let change = told.ruleset.replace(gone, new);
        if change_or_complain(socket, &told.ruleset, &change).is_err() {
            return self.ensure(&all());
        }
        self.told = Some(told);
        Ok(())
    }

    /// Whether firewalld judged what is forwarded when others were last looked at.
    pub(crate) fn meets_firewalld(&self) -> bool {
        self.foreign.firewalld
    }

    /// Looks at what there is, of ours and of others.
    pub(crate) fn survey(&mut self) -> Result<Survey> {
        let Some(Ok(Kernel { socket, ownership, .. })) = &mut self.kernel else {
            return Ok(Survey::default());
        };
        let mut elements = BTreeSet::new();
        for set in rules::PORT_SETS {
            let found = nft::elements_of(socket, ruleset::Family::Inet, &self.table, set)?;
            elements.extend(found.into_iter().map(|element| (set, element)));
        }
        let others = foreign::survey(socket, &self.table)?;
        Ok(Survey {
            elements,
            judges: others.judges,
            refusals: others.refusals,
            unowned: *ownership == Ownership::Shared,
            legacy: legacy_filters(),
            ufw: others.ufw,
        })
    }

    /// How the kernel's table differs from what it should be.
    pub(crate) fn difference(&mut self, view: &View) -> Result<Vec<String>> {
        let Some(Kernel { socket, ownership, .. }) = guarding(&mut self.kernel, view)? else {
            return Ok(Vec::new());
        };
        let mut differences = Vec::new();
        for ruleset in [leash::of_frames(&self.table, view), rules::render(&self.table, view)] {
            differences.extend(nft::difference(socket, &ruleset, *ownership)?);
        }
        differences.extend(self.user_chain.difference(socket, &view.choices)?);
        Ok(differences)
    }

    /// Closes what answers have opened to these addresses, but for what `stays`; returns that.
    pub(crate) fn revoke(
        &mut self,
        from: &[IpAddr],
        stays: impl Fn(&grants::Grant) -> bool,
    ) -> Result<Vec<grants::Grant>> {
        let Some(Ok(Kernel { socket, .. })) = &mut self.kernel else { return Ok(Vec::new()) };
        grants::revoke(socket, &self.table, from, stays)
    }
}

/// The kernel's firewall, where we have one. That it has none matters where there is something to guard.
fn guarding<'a>(
    kernel: &'a mut Option<Result<Kernel, String>>,
    view: &View,
) -> Result<Option<&'a mut Kernel>> {
    let Choices { ipv4, ipv6, .. } = view.choices;
    let guarded = view.bridges.iter().any(|bridge| {
        (ipv4 == Rules::Ours && bridge.ipv4.is_some())
            || (ipv6 == Rules::Ours && bridge.ipv6.is_some())
    });
    match kernel {
        Some(Ok(kernel)) => Ok(Some(kernel)),
        Some(Err(reason)) if guarded => Err(Error::internal(format!(
            "this kernel has no nftables ({reason}): start the daemon with --iptables=false --ip6tables=false, and guard \
             its networks yourself"
        ))),
        Some(Err(_)) | None => Ok(None),
    }
}

impl Kernel {
    fn open(keeper: Option<&dyn Keeper>) -> Result<Self> {
        let kept = keeper.map(|keeper| keeper.take(KEPT)).transpose()?.flatten();
        let found = kept.is_some();
        let mut socket = match kept {
            Some(kept) => Socket::adopt(kept),
            None => Socket::netfilter()?,
        };
        let ownership = match (Ownership::of_kernel(&mut socket)?, keeper) {
            // It would go with the daemon, and leave open what it guarded.
            (Ownership::Owned, None) => Ownership::Shared,
            (ownership, _) => ownership,
        };
        Ok(Self { socket, ownership, kept: found })
    }

    /// Takes our tables away.
    fn clear(&mut self, table: &str) -> Result<()> {
        let nothing = View::default();
        for ruleset in [leash::of_frames(table, &nothing), rules::render(table, &nothing)] {
            nft::apply(&mut self.socket, &ruleset, self.ownership)?;
        }
        Ok(())
    }
}

fn change_or_complain(socket: &mut Socket, to: &Ruleset, change: &Change) -> Result<()> {
    if change.is_empty() {
        return Ok(());
    }
    nft::change(socket, to.family, &to.table, change).inspect_err(|err| {
        tracing::warn!(table = %to.table, err = %err.chain(), "the firewall is not as we left it; setting it anew");
    })
}

/// What the kernel has when the elements are changed for what one view has and the other has not: without a look at all
/// that stays, which is nearly everything. `None` when it has something else.
fn adjust_elements(socket: &mut Socket, mut told: Told, view: &View) -> Option<Told> {
    let gone = rules::of_missing(&told.view, view);
    let new = rules::of_missing(view, &told.view);
    let change = told.ruleset.replace(gone, new);
    change_or_complain(socket, &told.ruleset, &change).ok()?;
    Some(Told { view: view.clone(), ..told })
}

/// The same where somebody's egress is restricted, or is not any more. `None` also where that takes other rules.
fn adjust_guards(socket: &mut Socket, table: &str, told: &Told, view: &View) -> Option<Told> {
    let ruleset = rules::render(table, view);
    let frames = leash::of_frames(table, view);
    if (&told.ruleset.chains, &told.frames.chains) != (&ruleset.chains, &frames.chains) {
        return None;
    }
    for (from, to) in [(&told.frames, &frames), (&told.ruleset, &ruleset)] {
        change_or_complain(socket, to, &changes(from, to)).ok()?;
    }
    Some(Told { ruleset, frames, view: view.clone() })
}

/// What has to go and to come for the elements of one ruleset to become those of another.
fn changes(from: &Ruleset, to: &Ruleset) -> Change {
    let missing = |here: &Ruleset, there: &Ruleset| -> Vec<(&'static str, Element)> {
        let of_set = |set: &ruleset::Set| {
            let other = there.set(set.name);
            let absent =
                |element: &&Element| !other.is_some_and(|set| set.elements.contains_key(*element));
            let name = set.name;
            let absent: Vec<_> = set.elements.keys().filter(absent).cloned().collect();
            absent.into_iter().map(move |element| (name, element))
        };
        here.sets.iter().flat_map(of_set).collect()
    };
    Change { gone: missing(from, to), new: missing(to, from) }
}

impl Ruleset {
    /// Takes reasons for elements away and adds others; tells which elements that leaves without a reason, and which are
    /// new.
    fn replace(
        &mut self,
        gone: Vec<(&'static str, Element)>,
        new: Vec<(&'static str, Element)>,
    ) -> Change {
        let mut change = Change::default();
        for (name, element) in gone {
            let Some(set) = self.set_mut(name) else { continue };
            let Some(reasons) = set.elements.get_mut(&element) else { continue };
            *reasons -= 1;
            if *reasons == 0 {
                set.elements.remove(&element);
                change.gone.push((name, element));
            }
        }
        for (name, element) in new {
            let Some(set) = self.set_mut(name) else { continue };
            set.add(element.clone());
            if set.elements[&element] == 1 {
                change.new.push((name, element));
            }
        }
        let came_back: Vec<_> =
            change.gone.iter().filter(|gone| change.new.contains(gone)).cloned().collect();
        change.gone.retain(|gone| !came_back.contains(gone));
        change.new.retain(|new| !came_back.contains(new));
        change
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::view::{Bridge, Family};
    use super::*;
    use crate::records::GatewayMode;

    /// A kernel that gives tables no owner: whoever takes ours away finds it there again.
    #[test]
    fn what_nobody_owns_comes_back() {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: needs root");
            return;
        }
        let host = std::thread::spawn(|| {
            sys::ns::unshare(sys::process::CloneFlags::NEWNET).unwrap();
            let socket = Socket::netfilter().unwrap();
            let kernel = Kernel { socket, ownership: Ownership::Shared, kept: false };
            let config = NetworkConfig::default();
            let family = Family {
                subnets: vec!["172.17.0.0/16".parse().unwrap()],
                mode: GatewayMode::Nat,
                masquerade: true,
                addressed: true,
            };
            let bridge = view::Bridge {
                name: "gantry0".to_owned(),
                icc: true,
                internal: false,
                ipv4: Some(family),
                ipv6: None,
                trusted: Vec::new(),
            };
            let firewall = Arc::new(Mutex::new(Firewall::with(&config, Some(Ok(kernel)))));
            let choices = firewall.lock().unwrap().choices();
            assert_eq!(choices.localhost, Localhost::Proxy, "its devices route no loopback");
            let view = View { bridges: vec![bridge], choices, ..View::default() };
            firewall.lock().unwrap().ensure(&view).unwrap();
            let (told, mended) = std::sync::mpsc::channel();
            let (again, ours) = (Arc::clone(&firewall), view.clone());
            let source = firewall.lock().unwrap().watch(move || {
                again.lock().unwrap().ensure(&ours).unwrap();
                told.send(()).unwrap();
            });
            let monitor = crate::watch::Monitor::start(vec![source.unwrap().unwrap()]).unwrap();
            let nft = |words: &[&str]| {
                let output = std::process::Command::new("nft").args(words).output().unwrap();
                assert!(output.status.success(), "{output:?}");
                String::from_utf8(output.stdout).unwrap()
            };
            let table = config.table();
            let listed = || nft(&["list", "table", "inet", &table]);
            let whole = listed();
            for taken in [
                vec!["flush", "ruleset"],
                vec!["delete", "table", "inet", &table],
                vec!["flush", "chain", "inet", &table, "forward"],
                vec!["flush", "table", "inet", &table],
            ] {
                nft(&taken);
                mended.recv().unwrap();
                // Another look may follow what the first one did not see yet.
                while !firewall.lock().unwrap().difference(&view).unwrap().is_empty() {
                    mended.recv().unwrap();
                }
                assert_eq!(listed(), whole, "{taken:?}");
            }
            drop(monitor);
        });
        host.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    }

    #[test]
    fn a_kernel_without_nftables_is_no_trouble_until_there_is_something_to_guard() {
        let family = || Family {
            subnets: Vec::new(),
            mode: GatewayMode::Nat,
            masquerade: true,
            addressed: true,
        };
        let outcome = |iptables, ipv4: bool, ipv6: bool| {
            let config = NetworkConfig { iptables, ..NetworkConfig::default() };
            let mut firewall =
                Firewall::with(&config, Some(Err("Protocol not supported".to_owned())));
            let bridge = Bridge {
                name: "gantry0".to_owned(),
                icc: true,
                internal: false,
                ipv4: ipv4.then(family),
                ipv6: ipv6.then(family),
                trusted: Vec::new(),
            };
            let bridges = if ipv4 || ipv6 { vec![bridge] } else { Vec::new() };
            let view = View { bridges, choices: firewall.choices(), ..View::default() };
            firewall.ensure(&view).map_err(|err| err.to_string())
        };
        assert_eq!(outcome(true, false, false), Ok(()), "--bridge none");
        assert_eq!(outcome(false, true, false), Ok(()), "--iptables=false");
        let refusal = "this kernel has no nftables (Protocol not supported): start the daemon with --iptables=false \
                       --ip6tables=false, and guard its networks yourself";
        assert_eq!(outcome(true, true, false).unwrap_err(), refusal);
        assert_eq!(outcome(false, true, true).unwrap_err(), refusal);
    }
}
