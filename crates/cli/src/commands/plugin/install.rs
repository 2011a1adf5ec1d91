//! `plugin install`, `create`, `push` and `upgrade`: what makes and moves managed plugins. Nothing does yet, and all say so.

use crate::command::{Args, Call, Command, Run};
use crate::failure::Failure;
use crate::flags::{Flag, Kind};

const GRANT: Flag = Flag::new(
    "grant-all-permissions",
    Kind::Switch,
    "Grant all permissions necessary to run the plugin",
);
const SKIP: Flag = Flag::new(
    "skip-remote-check",
    Kind::Switch,
    "Do not check if specified remote plugin matches existing plugin image",
);

pub(crate) static INSTALL: Command = Command {
    names: &["plugin install"],
    usage: "[OPTIONS] PLUGIN [KEY=VALUE...]",
    about: "Install a plugin",
    args: Args::AtLeast(1),
    flags: &[
        Flag::new("alias", Kind::Text, "Local name for plugin"),
        Flag::new("disable", Kind::Switch, "Do not enable the plugin on install"),
        GRANT,
    ],
    run: |call| refused(call, "installing"),
    ..Command::NONE
};

pub(crate) static CREATE: Command = Command {
    names: &["plugin create"],
    usage: "[OPTIONS] PLUGIN PLUGIN-DATA-DIR",
    about: "Create a plugin from a rootfs and configuration. Plugin data directory must contain config.json and rootfs directory.",
    args: Args::AtLeast(2),
    flags: &[Flag::new("compress", Kind::Switch, "Compress the context using gzip")],
    run: |call| refused(call, "creating"),
    ..Command::NONE
};

pub(crate) static PUSH: Command = Command {
    names: &["plugin push"],
    usage: "[OPTIONS] PLUGIN[:TAG]",
    about: "Push a plugin to a registry",
    args: Args::Exactly(1),
    run: |call| refused(call, "pushing"),
    ..Command::NONE
};

pub(crate) static UPGRADE: Command = Command {
    names: &["plugin upgrade"],
    usage: "[OPTIONS] PLUGIN [REMOTE]",
    about: "Upgrade an existing plugin",
    args: Args::Between(1, 2),
    flags: &[GRANT, SKIP],
    run: |call| refused(call, "upgrading"),
    ..Command::NONE
};

fn refused<'a>(_call: &'a Call<'a>, doing: &'static str) -> Run<'a> {
    Box::pin(async move {
        Err(Failure::words(format!(
            "{doing} managed plugins is not supported yet: a plugin that runs already is found by its socket or file"
        )))
    })
}
