//! Go's text/template, as far as Docker's users write it: formats of listings, and secrets that are made of others.
//!
//! A [`Template`] is parsed once and run over [`Value`]s.

mod eval;
mod functions;
mod parse;
mod print;
mod value;

pub use eval::Absent;
pub use functions::{Docker, Functions};
pub use value::{Escape, Row, Value};

/// A parsed template.
#[derive(Debug)]
pub struct Template<F = Docker> {
    /// What Go's sentences call it.
    name: &'static str,
    text: String,
    nodes: Vec<parse::Node>,
    functions: F,
}

impl Template {
    /// With the functions that Docker's commands have. Go's sentence on failure: `template: :1: unclosed action`.
    pub fn parse(text: &str) -> Result<Self, String> {
        Self::with("", text, Docker)
    }
}

impl<F: Functions> Template<F> {
    /// With functions of the caller's beside Go's own.
    pub fn with(name: &'static str, text: &str, functions: F) -> Result<Self, String> {
        let nodes = parse::parse(name, text, &functions)?;
        Ok(Self { name, text: text.to_owned(), nodes, functions })
    }

    pub fn run(&self, data: &Value, absent: Absent) -> Result<String, String> {
        eval::run(self, data, absent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data() -> Value {
        serde_json::from_str(
            r#"{"Name":"/web","Id":"0123456789abcdef","State":{"Pid":42,"Running":true,"Health":null},
                "Env":["A=1","B=2"],"Ports":{"80/tcp":[{"HostIp":"0.0.0.0","HostPort":"8080"}],"81/tcp":null},"None":[]}"#,
        )
        .unwrap()
    }

    fn check(template: &str, expected: &str) {
        let shown = match Template::parse(template) {
            Ok(template) => {
                template.run(&data(), Absent::NoValue).unwrap_or_else(|err| format!("run: {err}"))
            }
            Err(err) => format!("parse: {err}"),
        };
        assert_eq!(shown, expected, "{template}");
    }

    #[test]
    fn fields_and_pipelines() {
        check("{{.Name}} {{ .State.Pid }}", "/web 42");
        check("{{.Nope}}|{{.State.Nope}}", "<no value>|<no value>");
        check("{{json .State}}", r#"{"Health":null,"Pid":42,"Running":true}"#);
        check("{{.Name | upper | printf \"%s!\"}}", "/WEB!");
        check("{{join .Env \", \"}}", "A=1, B=2");
        check("{{index .Env 1}} {{(index (index .Ports \"80/tcp\") 0).HostPort}}", "B=2 8080");
        check("{{slice .Id 0 4}} {{truncate .Id 4}} {{len .Env}}", "0123 0123 2");
        check("{{.State}} {{.Env}}", "map[Health:<nil> Pid:42 Running:true] [A=1 B=2]");
        check("{{title \"hello world\"}}{{pad \"x\" 1 2}}|", "Hello World x  |");
        check("{{split \"a/b\" \"/\"}}", "[a b]");
        check("{{println 1 \"x\"}}", "1 x\n");
    }

    #[test]
    fn control() {
        check("{{if .State.Running}}up{{else}}down{{end}}", "up");
        check("{{if .State.Health}}a{{else if .None}}b{{else}}c{{end}}", "c");
        check(
            "{{range .Env}}<{{.}}>{{end}}{{range .None}}x{{else}}empty{{end}}",
            "<A=1><B=2>empty",
        );
        check(
            "{{range $p, $b := .Ports}}{{$p}}={{range $b}}{{.HostPort}}{{end}};{{end}}",
            "80/tcp=8080;81/tcp=;",
        );
        check("{{with .State}}{{.Pid}}{{$.Name}}{{end}}", "42/web");
        check("{{$x := 1}}{{range .Env}}{{$x = .}}{{end}}{{$x}}", "B=2");
        check("{{range $i, $e := .Env}}{{if $i}},{{end}}{{$e}}{{end}}", "A=1,B=2");
        check("{{range .Env}}{{break}}{{end}}a {{- /* trimmed */ -}} b", "ab");
        check(
            "{{if and (eq .State.Pid 42) (not .None)}}y{{end}}{{if or .None false}}n{{end}}",
            "y",
        );
        check(
            "{{eq .Name \"a\" \"/web\"}} {{lt 1 2}} {{ge 1 2}} {{ne 1 2}}",
            "true true false true",
        );
    }

    #[test]
    fn refusals_in_gos_words() {
        check("{{.Foo", "parse: template: :1: unclosed action");
        check("{{foo}}", "parse: template: :1: function \"foo\" not defined");
        check("{{if .A}}", "parse: template: :1: unexpected EOF");
        check("{{end}}", "parse: template: :1: unexpected {{end}}");
        check("{{}}", "parse: template: :1: missing value for command");
        check("a\n{{$x}}", "parse: template: :2: undefined variable \"$x\"");
        check(
            "{{.Name.Foo}}",
            "run: template: :1:7: executing \"\" at <.Name.Foo>: can't evaluate field Foo in type string",
        );
        check(
            "{{index .Env 5}}",
            "run: template: :1:2: executing \"\" at <index .Env 5>: error calling index: index out of range: 5",
        );
    }

    struct Greeting;

    impl Functions for Greeting {
        fn takes(&self, name: &str) -> Option<(usize, usize)> {
            (name == "greet").then_some((1, 1))
        }

        fn call(&self, _name: &str, args: &[Value]) -> Result<Value, String> {
            match args[0].as_str() {
                Some("nobody") => Err("nobody is there".to_owned()),
                name => Ok(Value::text(format!("hello {}", name.unwrap_or_default()))),
            }
        }
    }

    #[test]
    fn functions_of_the_callers() {
        let run = |text| Template::with("letter", text, Greeting)?.run(&data(), Absent::Error);
        assert_eq!(run("{{greet .Name | printf \"%s!\"}}").unwrap(), "hello /web!");
        assert_eq!(
            run("{{greet \"nobody\"}}").unwrap_err(),
            "template: letter:1:2: executing \"letter\" at <greet \"nobody\">: error calling greet: nobody is there"
        );
        assert_eq!(
            run("{{upper .Name}}").unwrap_err(),
            "template: letter:1: function \"upper\" not defined"
        );
    }
}
