//! The program: parse, start the log, run the command, and say what went wrong in one line.

#![forbid(unsafe_code)]

use log::LevelFilter;
use oneloop::config::{Asked, parse};
use oneloop::{commands, logging};
use std::io::Write;
use std::process::ExitCode;

/// Wrong usage, as `getopt` programs and clap have it.
const WRONG_USAGE: u8 = 2;

fn main() -> ExitCode {
    let done = match parse(std::env::args_os()) {
        Ok(Asked::Serve(config)) => {
            logging::start(config.log_level, LevelFilter::Info);
            commands::serve::run(&config)
        }
        #[cfg(feature = "client")]
        Ok(Asked::Connect(asked)) => {
            logging::start(asked.log_level, LevelFilter::Warn);
            commands::connect::run(&asked)
        }
        #[cfg(feature = "client")]
        Ok(Asked::Ping(asked)) => {
            logging::start(asked.log_level, LevelFilter::Warn);
            commands::ping::run(&asked)
        }
        #[cfg(feature = "files")]
        Ok(Asked::Transfer(asked)) => {
            logging::start(asked.log_level, LevelFilter::Warn);
            commands::transfer::run(&asked)
        }
        Ok(Asked::Print(text)) => {
            let _ = std::io::stdout().write_all(text.as_bytes()); // `oneloop --help | head -1` is no failure
            return ExitCode::SUCCESS;
        }
        Err(sentence) => return fail(WRONG_USAGE, &format!("{sentence}; see oneloop --help")),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(sentence) => fail(1, &sentence),
    }
}

fn fail(code: u8, sentence: &str) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "oneloop: {sentence}"); // a closed standard error must not turn this into a panic
    ExitCode::from(code)
}
