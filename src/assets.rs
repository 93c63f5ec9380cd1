//! Writes the man page and the shell completions from the definition of the command line.
//!
//! `assets DIR` writes orlop.8, an orlop-VERB.8 for each verb, orlop.bash, _orlop and orlop.fish. `make install` runs
//! it.

use clap_complete::Shell;
use std::path::Path;

fn main() -> std::io::Result<()> {
    let Some(dir) = std::env::args_os().nth(1) else {
        eprintln!("usage: assets DIR");
        std::process::exit(2);
    };
    std::fs::create_dir_all(&dir)?;
    man_pages(Path::new(&dir))?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut orlop::cli::pages::command(), "orlop", &dir)?;
    }
    Ok(())
}

fn man_pages(dir: &Path) -> std::io::Result<()> {
    let mut program = orlop::cli::pages::command();
    program.build();
    page(dir, "orlop", program.clone())?;
    for verb in program.get_subcommands() {
        page(dir, &format!("orlop-{}", verb.get_name()), verb.clone())?;
    }
    Ok(())
}

fn page(dir: &Path, name: &str, command: clap::Command) -> std::io::Result<()> {
    let mut page = Vec::new();
    clap_mangen::Man::new(command)
        .title(name.to_uppercase())
        .section("8")
        .manual("System Administration")
        .render(&mut page)?;
    std::fs::write(dir.join(format!("{name}.8")), page)
}
