//! `system dial-stdio`: the daemon's socket on our standard streams, for whoever comes by ssh.

use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;

use crate::command::{Call, Command};
use crate::failure::{Failure, Result};
use crate::flags::Help;
use crate::streams::read_stdin;

pub(crate) static COMMAND: Command = Command {
    names: &["system dial-stdio"],
    about: "Proxy the stdio stream to the daemon connection. Should not be invoked manually.",
    help: Help::Hidden,
    run: |call| Box::pin(run(call)),
    ..Command::NONE
};

async fn run(call: &Call<'_>) -> Result {
    let target = call.cli.target()?;
    let Some(path) = target.host.strip_prefix("unix://") else {
        return Err(Failure::words(format!(
            "dial-stdio serves unix sockets only, not {}",
            target.host
        )));
    };
    let stream = UnixStream::connect(path).await.map_err(|err| {
        Failure::words(format!(
            "failed to open the raw stream connection: dial unix {path}: {}",
            stdx::Error::from(err)
        ))
    })?;
    let (mut from, mut to) = stream.into_split();
    let up = async {
        let mut chunks = read_stdin();
        while let Some(chunk) = chunks.recv().await {
            to.write_all(&chunk).await?;
        }
        to.shutdown().await
    };
    let mut stdout = tokio::io::stdout();
    let down = async {
        tokio::io::copy(&mut from, &mut stdout).await?;
        stdout.flush().await
    };
    // The daemon's end is the end; ours leaves what is still to come.
    tokio::pin!(up, down);
    tokio::select! {
        result = &mut down => Ok(result?),
        result = &mut up => {
            result?;
            Ok(down.await?)
        }
    }
}
