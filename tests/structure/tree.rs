//! The source tree as `syn` parses it: which files there are, what their product code names, and how long their
//! functions are.
//!
//! Product code is everything that does not stand below `#[cfg(test)]`. A name is followed through imports and
//! re-exports to the file that defines it. Method calls are not followed: that needs the types.
//! Not for: the rules (structure.rs).

use proc_macro2::{Span, TokenStream, TokenTree};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

/// Everything below src, parsed once for all tests.
pub static TREE: LazyLock<Tree> = LazyLock::new(|| {
    let mut tree = Tree::default();
    for root in ["src/lib.rs", "src/main.rs", "src/assets.rs"] {
        tree.read(root.into(), None, false);
    }
    tree
});

/// All Rust files below `dir`, by their path below the repository.
pub fn rust_files(dir: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in
        fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(dir)).expect("the directory").flatten()
    {
        let path = entry.path();
        let name = format!("{dir}/{}", entry.file_name().display());
        if path.is_dir() {
            found.extend(rust_files(&name));
        } else if name.ends_with(".rs") {
            found.push(name.into());
        }
    }
    found.sort();
    found
}

pub fn source(file: &Path) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).expect("a source file")
}

/// A function: the lines from `fn` to its last brace.
pub struct Function {
    pub name: String,
    pub first: usize,
    pub last: usize,
}

/// A file by itself, which is not part of the tree.
pub fn file(path: &Path) -> File {
    let mut tree = Tree::default();
    tree.parse(path, None, false);
    tree.files.remove(path).expect("the file just parsed")
}

/// A parsed file.
pub struct File {
    /// The text with every line of a test left empty.
    pub product: String,
    /// Those of its tests included.
    pub functions: Vec<Function>,
}

impl File {
    /// The name of the innermost function around a line; empty outside of functions.
    pub fn function(&self, line: usize) -> &str {
        let around =
            self.functions.iter().filter(|function| (function.first..=function.last).contains(&line));
        around.max_by_key(|function| function.first).map_or("", |function| &function.name)
    }
}

/// A module: a file, or an inline `mod` in one.
#[derive(Default)]
struct Module {
    file: PathBuf,
    parent: Option<usize>,
    children: HashMap<String, usize>,
    /// The names of the items that are defined here.
    items: HashSet<String>,
    /// The names that `use` brings in, each with its path as written.
    imports: HashMap<String, Vec<String>>,
    globs: Vec<Vec<String>>,
    /// Every path that product code writes, with its line.
    named: Vec<(Vec<String>, usize)>,
}

/// `mod name;` in a file: the name, the directory in which its file is, and whether it is a test.
struct Declared {
    name: String,
    dir: PathBuf,
    parent: usize,
    test: bool,
}

/// A file depends on another one: its line `line` names `path`, which the other file defines.
pub struct Arrow {
    pub from: PathBuf,
    pub to: PathBuf,
    pub line: usize,
    pub path: String,
}

#[derive(Default)]
pub struct Tree {
    modules: Vec<Module>,
    pub files: BTreeMap<PathBuf, File>,
    /// `macro_rules!` that are exported from the root of the crate, and the module that defines them.
    macros: HashMap<String, usize>,
    /// Sources that the test of this reader gives in place of files.
    texts: BTreeMap<PathBuf, String>,
}

/// Where a path leads: to a module itself, or to something that a module defines.
enum Target {
    Module(usize),
    Item(usize),
}

impl Tree {
    fn text(&self, file: &Path) -> Option<String> {
        match self.texts.is_empty() {
            true => fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).ok(),
            false => self.texts.get(file).cloned(),
        }
    }

    fn read(&mut self, file: PathBuf, parent: Option<usize>, test: bool) -> usize {
        let (module, declared) = self.parse(&file, parent, test);
        for Declared { name, dir, parent, test } in declared {
            let here = [dir.join(format!("{name}.rs")), dir.join(&name).join("mod.rs")];
            let found = here.into_iter().find(|path| self.text(path).is_some());
            let child = self.read(found.expect("the file of a module"), Some(parent), test);
            if !test {
                self.modules[parent].children.insert(name, child);
            }
        }
        module
    }

    fn parse(&mut self, file: &Path, parent: Option<usize>, test: bool) -> (usize, Vec<Declared>) {
        let text = self.text(file).expect("a source file");
        let parsed = syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let module = self.modules.len();
        self.modules.push(Module { file: file.to_owned(), parent, ..Module::default() });
        let root = parent.is_none() || file.ends_with("mod.rs");
        let dir = if root { file.parent().expect("a directory").to_owned() } else { file.with_extension("") };
        let mut reader = Reader {
            tree: self,
            module,
            dir,
            test,
            functions: Vec::new(),
            tests: Vec::new(),
            declared: Vec::new(),
        };
        reader.visit_file(&parsed);
        let Reader { functions, tests, declared, .. } = reader;
        let in_test =
            |line: usize| test || tests.iter().any(|(first, last)| (*first..=*last).contains(&line));
        let lines = text.lines().enumerate().map(|(at, line)| if in_test(at + 1) { "" } else { line });
        let product = lines.flat_map(|line| [line, "\n"]).collect();
        self.files.insert(file.to_owned(), File { product, functions });
        (module, declared)
    }

    fn root(&self, mut module: usize) -> usize {
        while let Some(parent) = self.modules[module].parent {
            module = parent;
        }
        module
    }

    /// Where `path`, written in module `from`, leads; `None` if it leads out of the crate.
    fn resolve(&self, from: usize, path: &[String], depth: usize) -> Option<Target> {
        let (first, rest) = path.split_first()?;
        let root = self.root(from);
        match first.as_str() {
            _ if depth > 20 => None,
            "crate" => Some(self.walk(root, rest, depth)),
            "orlop" if root != 0 => Some(self.walk(0, rest, depth)),
            "self" => Some(self.walk(from, rest, depth)),
            "super" => Some(self.walk(self.modules[from].parent?, rest, depth)),
            name => self.has(from, name, depth).then(|| self.walk(from, path, depth)),
        }
    }

    /// True if a module defines or imports `name`, and it belongs to this crate.
    fn has(&self, module: usize, name: &str, depth: usize) -> bool {
        let own = &self.modules[module];
        let imported = || {
            own.imports.get(name).is_some_and(|path| {
                path.first().is_some_and(|first| first != name)
                    && self.resolve(module, path, depth + 1).is_some()
            })
        };
        own.children.contains_key(name) || own.items.contains(name) || imported()
    }

    fn walk(&self, module: usize, path: &[String], depth: usize) -> Target {
        let Some((name, rest)) = path.split_first() else { return Target::Module(module) };
        let own = &self.modules[module];
        if name == "super" {
            return self.walk(own.parent.expect("a module above"), rest, depth);
        }
        if let Some(child) = own.children.get(name) {
            return self.walk(*child, rest, depth);
        }
        if own.items.contains(name) {
            return Target::Item(module);
        }
        if let Some(import) = own.imports.get(name) {
            return match self.resolve(module, import, depth + 1) {
                Some(Target::Module(other)) => self.walk(other, rest, depth + 1),
                Some(item) => item,
                // This module hands on an item of another crate.
                None => Target::Item(module),
            };
        }
        for glob in &own.globs {
            if let Some(Target::Module(other)) = self.resolve(module, glob, depth + 1)
                && self.has(other, name, depth + 1)
            {
                return self.walk(other, path, depth + 1);
            }
        }
        match self.macros.get(name) {
            Some(other) if own.parent.is_none() => Target::Item(*other),
            _ => Target::Item(module),
        }
    }

    /// All arrows between files, in the order of the source.
    pub fn arrows(&self) -> Vec<Arrow> {
        let mut arrows = Vec::new();
        for (at, module) in self.modules.iter().enumerate() {
            for (path, line) in &module.named {
                // A name of a module is no arrow: the longer paths that start with it are.
                let Some(Target::Item(to)) = self.resolve(at, path, 0) else { continue };
                let (from, to) = (module.file.clone(), self.modules[to].file.clone());
                if from != to {
                    arrows.push(Arrow { from, to, line: *line, path: path.join("::") });
                }
            }
        }
        arrows
    }
}

/// Reads one file into the tree.
struct Reader<'a> {
    tree: &'a mut Tree,
    module: usize,
    dir: PathBuf,
    /// The reader is below `#[cfg(test)]`, where it collects functions only.
    test: bool,
    functions: Vec<Function>,
    /// First and last lines of the tests.
    tests: Vec<(usize, usize)>,
    declared: Vec<Declared>,
}

/// True if a `cfg` among the attributes holds in tests only.
fn is_test(attributes: &[syn::Attribute]) -> bool {
    fn tests_only(meta: &syn::Meta) -> bool {
        let parts = |list: &syn::MetaList| {
            let parse = syn::punctuated::Punctuated::<syn::Meta, syn::Token![,]>::parse_terminated;
            list.parse_args_with(parse).into_iter().flatten().collect::<Vec<_>>()
        };
        match meta {
            syn::Meta::Path(path) => path.is_ident("test"),
            syn::Meta::List(list) if list.path.is_ident("any") => parts(list).iter().all(tests_only),
            syn::Meta::List(list) if list.path.is_ident("all") => parts(list).iter().any(tests_only),
            _ => false,
        }
    }
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.parse_args::<syn::Meta>().is_ok_and(|meta| tests_only(&meta))
    })
}

fn attributes(item: &syn::Item) -> &[syn::Attribute] {
    use syn::Item::*;
    match item {
        Const(item) => &item.attrs,
        Enum(item) => &item.attrs,
        ExternCrate(item) => &item.attrs,
        Fn(item) => &item.attrs,
        ForeignMod(item) => &item.attrs,
        Impl(item) => &item.attrs,
        Macro(item) => &item.attrs,
        Mod(item) => &item.attrs,
        Static(item) => &item.attrs,
        Struct(item) => &item.attrs,
        Trait(item) => &item.attrs,
        Type(item) => &item.attrs,
        Union(item) => &item.attrs,
        Use(item) => &item.attrs,
        other => panic!("an item that this test does not know, in line {}", other.span().start().line),
    }
}

fn defined(item: &syn::Item) -> Option<&syn::Ident> {
    use syn::Item::*;
    match item {
        Const(item) => Some(&item.ident),
        Enum(item) => Some(&item.ident),
        Fn(item) => Some(&item.sig.ident),
        Macro(item) => item.ident.as_ref(),
        Static(item) => Some(&item.ident),
        Struct(item) => Some(&item.ident),
        Trait(item) => Some(&item.ident),
        Type(item) => Some(&item.ident),
        Union(item) => Some(&item.ident),
        _ => None,
    }
}

impl Reader<'_> {
    fn name(&mut self, path: Vec<String>, span: Span) {
        if !self.test && !path.is_empty() {
            self.tree.modules[self.module].named.push((path, span.start().line));
        }
    }

    fn function(&mut self, sig: &syn::Signature, block: &syn::Block) {
        let (first, last) = (sig.fn_token.span.start().line, block.span().end().line);
        self.functions.push(Function { name: sig.ident.to_string(), first, last });
    }

    /// Visits an item. Its lines are a test if one of its attributes says so.
    fn inside(&mut self, attributes: &[syn::Attribute], span: Span, inner: impl FnOnce(&mut Self)) {
        let outer = self.test;
        if is_test(attributes) {
            self.tests.push((span.start().line, span.end().line));
            self.test = true;
        }
        inner(self);
        self.test = outer;
    }

    fn uses(&mut self, tree: &syn::UseTree, before: &[String]) {
        let with = |name: &syn::Ident| [before, &[name.to_string()]].concat();
        let (path, here) = match tree {
            syn::UseTree::Path(path) => return self.uses(&path.tree, &with(&path.ident)),
            syn::UseTree::Group(group) => {
                return group.items.iter().for_each(|tree| self.uses(tree, before));
            }
            syn::UseTree::Name(name) if name.ident == "self" => (before.to_vec(), before.last().cloned()),
            syn::UseTree::Name(name) => (with(&name.ident), Some(name.ident.to_string())),
            syn::UseTree::Rename(name) if name.ident == "self" => {
                (before.to_vec(), Some(name.rename.to_string()))
            }
            syn::UseTree::Rename(name) => (with(&name.ident), Some(name.rename.to_string())),
            syn::UseTree::Glob(_) => {
                self.tree.modules[self.module].globs.push(before.to_vec());
                (before.to_vec(), None)
            }
        };
        if let Some(here) = here.filter(|here| here != "_") {
            self.tree.modules[self.module].imports.insert(here, path.clone());
        }
        self.name(path, tree.span());
    }

    /// Collects paths from the tokens of a macro, which `syn` does not parse.
    fn tokens(&mut self, tokens: TokenStream) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let punct = |at: usize, is: char| matches!(tokens.get(at), Some(TokenTree::Punct(found)) if found.as_char() == is);
        let mut at = 0;
        while let Some(token) = tokens.get(at) {
            at += 1;
            match token {
                TokenTree::Group(group) => self.tokens(group.stream()),
                TokenTree::Ident(first) => {
                    let field = at > 1 && punct(at - 2, '.');
                    let mut path = vec![first.to_string()];
                    while punct(at, ':') && punct(at + 1, ':') {
                        let Some(TokenTree::Ident(next)) = tokens.get(at + 2) else { break };
                        path.push(next.to_string());
                        at += 3;
                    }
                    if !field {
                        self.name(path, first.span());
                    }
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) => {}
            }
        }
    }
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        self.inside(attributes(item), item.span(), |reader| {
            if let Some(name) = defined(item).filter(|_| !reader.test) {
                reader.tree.modules[reader.module].items.insert(name.to_string());
            }
            visit::visit_item(reader, item);
        });
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.inside(&item.attrs, item.span(), |reader| {
            reader.function(&item.sig, &item.block);
            visit::visit_impl_item_fn(reader, item);
        });
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        self.inside(&item.attrs, item.span(), |reader| {
            item.default.iter().for_each(|block| reader.function(&item.sig, block));
            visit::visit_trait_item_fn(reader, item);
        });
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.function(&item.sig, &item.block);
        visit::visit_item_fn(self, item);
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        let name = item.ident.to_string();
        let Some((_, items)) = &item.content else {
            let (dir, parent, test) = (self.dir.clone(), self.module, self.test);
            return self.declared.push(Declared { name, dir, parent, test });
        };
        let (outer, dir) = (self.module, self.dir.clone());
        if !self.test {
            let file = self.tree.modules[outer].file.clone();
            self.module = self.tree.modules.len();
            self.tree.modules.push(Module { file, parent: Some(outer), ..Module::default() });
            self.tree.modules[outer].children.insert(name.clone(), self.module);
        }
        self.dir.push(name);
        items.iter().for_each(|item| self.visit_item(item));
        (self.module, self.dir) = (outer, dir);
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        if !self.test {
            self.uses(&item.tree, &[]);
        }
    }

    fn visit_item_macro(&mut self, item: &'ast syn::ItemMacro) {
        if let Some(name) = &item.ident
            && item.attrs.iter().any(|attribute| attribute.path().is_ident("macro_export"))
        {
            self.tree.macros.insert(name.to_string(), self.module);
        }
        visit::visit_item_macro(self, item);
    }

    fn visit_macro(&mut self, item: &'ast syn::Macro) {
        self.tokens(item.tokens.clone());
        visit::visit_macro(self, item);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        if path.leading_colon.is_none() {
            self.name(names, path.span());
        }
        visit::visit_path(self, path);
    }

    /// `pub(super)` and `pub(in crate::x)` use nothing of what they name.
    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {}

    fn visit_attribute(&mut self, attribute: &'ast syn::Attribute) {
        let known = self.test || !is_test(std::slice::from_ref(attribute));
        assert!(
            known,
            "{}:{}: #[cfg(test)] on something other than an item",
            self.tree.modules[self.module].file.display(),
            attribute.span().start().line
        );
        // serde's derives take functions as strings: #[serde(with = "crate::x")].
        if let syn::Meta::List(list) = &attribute.meta {
            for token in list.tokens.clone() {
                if let TokenTree::Literal(literal) = token
                    && let Ok(text) = syn::parse_str::<syn::LitStr>(&literal.to_string())
                    && let Ok(path) = text.parse::<syn::Path>()
                    && path.segments.len() > 1
                {
                    let names = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
                    self.name(names, literal.span());
                }
            }
        }
        visit::visit_attribute(self, attribute);
    }
}

#[test]
fn the_reader_sees_all_of_the_product_and_nothing_of_the_tests() {
    let mut tree = Tree::default();
    for (file, text) in [
        (
            "src/lib.rs",
            "mod a; mod b; mod c { pub use crate::b::Deep; } #[macro_export] macro_rules! out { () => {} }",
        ),
        (
            "src/a.rs",
            "#[cfg(test)]\nmod tests { use crate::b::in_tests; fn long() {} }\n\
             use super::b::{self, inner::Thing as Other, Plain};\n\
             #[cfg(any(test, unix))]\nfn f() { g!(x, b::in_macro(1)); crate::c::Deep::new(); b::local(); Other; }\n\
             #[cfg(test)]\nfn only_in_tests() { b::in_tests() }\n\
             #[serde(with = \"crate::b::in_text\")]\nstruct S;\n\
             pub(in crate::b) struct T; fn m() { crate::out!() }\n",
        ),
        ("src/b.rs", "pub mod inner; pub struct Deep; pub struct Plain; pub use self::inner::Thing;"),
        ("src/b/inner.rs", "pub struct Thing; impl Thing { fn up(_: super::super::a::S) {} }"),
    ] {
        tree.texts.insert(file.into(), text.into());
    }
    tree.read("src/lib.rs".into(), None, false);
    let seen: Vec<String> = tree
        .arrows()
        .iter()
        .map(|arrow| {
            let name = |path: &Path| path.strip_prefix("src").unwrap().display().to_string();
            format!("{} {} {} {}", name(&arrow.from), arrow.line, name(&arrow.to), arrow.path)
        })
        .collect();
    assert_eq!(
        seen,
        [
            "lib.rs 1 b.rs crate::b::Deep",
            "a.rs 3 b/inner.rs super::b::inner::Thing",
            "a.rs 3 b.rs super::b::Plain",
            "a.rs 5 b.rs b::in_macro",
            "a.rs 5 b.rs crate::c::Deep::new",
            "a.rs 5 b.rs b::local",
            "a.rs 5 b/inner.rs Other",
            "a.rs 8 b.rs crate::b::in_text",
            "a.rs 10 lib.rs crate::out",
            "b.rs 1 b/inner.rs self::inner::Thing",
            "b/inner.rs 1 a.rs super::super::a::S",
        ]
    );
    let file = &tree.files[Path::new("src/a.rs")];
    assert_eq!(file.product.lines().filter(|line| line.is_empty()).count(), 4, "{}", file.product);
    assert_eq!((file.function(2), file.function(5), file.function(9)), ("long", "f", ""));
}
