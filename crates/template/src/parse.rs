//! Template text → tree. The grammar and the error sentences are those of Go's text/template.

use crate::functions::{self, Functions};
use crate::value::Value;

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Node {
    Text(String),
    Action(Pipeline),
    If(Branch),
    With(Branch),
    Range(Branch),
    Break,
    Continue,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Branch {
    pub(crate) pipeline: Pipeline,
    pub(crate) body: Vec<Node>,
    pub(crate) otherwise: Vec<Node>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Pipeline {
    /// Variables set by it: one, or two in a `range`.
    pub(crate) variables: Vec<String>,
    /// `:=` makes new ones, `=` sets what is there.
    pub(crate) declares: bool,
    pub(crate) commands: Vec<Vec<Operand>>,
}

/// An operand with its place in the text, for messages.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Operand {
    pub(crate) at: usize,
    pub(crate) text: String,
    pub(crate) kind: OperandKind,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum OperandKind {
    Dot,
    Nil,
    Constant(Value),
    Field(Vec<String>),
    Variable(String, Vec<String>),
    Function(String),
    Nested(Box<Pipeline>, Vec<String>),
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Text(String),
    Open,
    Close,
    Field(String),
    Variable(String),
    Identifier(String),
    Keyword(&'static str),
    Constant(Value),
    Dot,
    Pipe,
    Declare,
    Assign,
    Comma,
    Left,
    Right,
    Space,
}

const KEYWORDS: [&str; 12] = [
    "if", "else", "end", "range", "with", "break", "continue", "nil", "define", "template",
    "block", ".",
];

struct Spot {
    token: Token,
    at: usize,
    source: String,
}

/// Where parsing failed: line and sentence, joined to Go's `template: :1: …`.
type Result<T> = std::result::Result<T, String>;

pub(crate) fn parse(name: &str, text: &str, functions: &dyn Functions) -> Result<Vec<Node>> {
    let tokens = Lexer { name, text, at: 0, tokens: Vec::new() }.run()?;
    let mut parser = Parser {
        name,
        text,
        functions,
        tokens,
        next: 0,
        variables: vec!["$".to_owned()],
        loops: 0,
    };
    let (nodes, end) = parser.block("")?;
    match end {
        Stop::OfText => Ok(nodes),
        Stop::Else => Err(parser.wrong("unexpected {{else}}")),
        Stop::Branch => Err(parser.wrong("unexpected {{end}}")),
    }
}

fn line(text: &str, at: usize) -> usize {
    1 + text.as_bytes()[..at.min(text.len())].iter().filter(|c| **c == b'\n').count()
}

struct Lexer<'a> {
    name: &'a str,
    text: &'a str,
    at: usize,
    tokens: Vec<Spot>,
}

impl Lexer<'_> {
    fn run(mut self) -> Result<Vec<Spot>> {
        let mut trim = false;
        loop {
            let rest = &self.text[self.at..];
            let Some(open) = rest.find("{{") else {
                self.push_text(rest, trim, false);
                return Ok(self.tokens);
            };
            let inside = self.at + open + 2;
            let trim_left =
                self.text[inside..].starts_with("- ") || self.text[inside..].starts_with("-\n");
            self.push_text(&rest[..open], trim, trim_left);
            let start = if trim_left { inside + 2 } else { inside };
            if self.text[start..].starts_with("/*") {
                let close = self.text[start..]
                    .find("*/")
                    .ok_or_else(|| self.wrong(start, "unclosed comment"))?;
                let after = start + close + 2;
                trim = self.text[after..].starts_with(" -}}");
                let tail = if trim { " -}}" } else { "}}" };
                if !self.text[after..].starts_with(tail) {
                    return Err(self.wrong(after, "comment ends before closing delimiter"));
                }
                self.at = after + tail.len();
                continue;
            }
            self.push(Token::Open, inside - 2, inside);
            self.at = start;
            trim = self.action()?;
        }
    }

    fn wrong(&self, at: usize, words: &str) -> String {
        format!("template: {}:{}: {words}", self.name, line(self.text, at))
    }

    fn push(&mut self, token: Token, from: usize, to: usize) {
        self.tokens.push(Spot { token, at: from, source: self.text[from..to].to_owned() });
        self.at = to;
    }

    fn push_text(&mut self, text: &str, trim_start: bool, trim_end: bool) {
        let space = [' ', '\t', '\r', '\n'];
        let text = if trim_start { text.trim_start_matches(space) } else { text };
        let text = if trim_end { text.trim_end_matches(space) } else { text };
        if !text.is_empty() {
            self.tokens.push(Spot {
                token: Token::Text(text.to_owned()),
                at: self.at,
                source: String::new(),
            });
        }
    }

    /// Up to the closing braces; true when they trim what follows.
    fn action(&mut self) -> Result<bool> {
        let mut depth = 0usize;
        loop {
            let rest = &self.text[self.at..];
            let at = self.at;
            if rest.starts_with("}}") || rest.starts_with(" -}}") || rest.starts_with("\n-}}") {
                if depth > 0 {
                    return Err(self.wrong(at, "unclosed left paren"));
                }
                let trims = !rest.starts_with("}}");
                self.push(Token::Close, at, at + if trims { 4 } else { 2 });
                return Ok(trims);
            }
            let Some(c) = rest.chars().next() else {
                return Err(self.wrong(at, "unclosed action"));
            };
            match c {
                ' ' | '\t' | '\r' | '\n' => {
                    // The last blank before ` -}}` belongs to that marker.
                    let mut count =
                        rest.find(|c| !matches!(c, ' ' | '\t' | '\r' | '\n')).unwrap_or(rest.len());
                    if rest[count..].starts_with("-}}") {
                        count -= 1;
                    }
                    self.push(Token::Space, at, at + count);
                }
                '|' => self.push(Token::Pipe, at, at + 1),
                '(' => {
                    depth += 1;
                    self.push(Token::Left, at, at + 1);
                }
                ')' => {
                    depth = depth
                        .checked_sub(1)
                        .ok_or_else(|| self.wrong(at, "unexpected right paren"))?;
                    self.push(Token::Right, at, at + 1);
                }
                ',' => self.push(Token::Comma, at, at + 1),
                ':' if rest.starts_with(":=") => self.push(Token::Declare, at, at + 2),
                ':' => return Err(self.wrong(at, "expected :=")),
                '=' => self.push(Token::Assign, at, at + 1),
                '"' => self.quoted(rest)?,
                '`' => {
                    let end = rest[1..]
                        .find('`')
                        .ok_or_else(|| self.wrong(at, "unterminated raw quoted string"))?;
                    let text = Value::text(&rest[1..=end]);
                    self.push(Token::Constant(text), at, at + end + 2);
                }
                '\'' => {
                    let end = rest[1..]
                        .find('\'')
                        .ok_or_else(|| self.wrong(at, "unterminated character constant"))?;
                    let inner = unquote(&rest[1..=end]).unwrap_or_default();
                    let code = inner.chars().next().map_or(0, u32::from);
                    self.push(Token::Constant(Value::Int(i64::from(code))), at, at + end + 2);
                }
                '$' => {
                    let end = 1 + word_end(&rest[1..]);
                    self.push(Token::Variable(rest[..end].to_owned()), at, at + end);
                }
                '.' if !rest[1..].starts_with(|c: char| c.is_ascii_digit()) => {
                    let end = 1 + word_end(&rest[1..]);
                    let token =
                        if end == 1 { Token::Dot } else { Token::Field(rest[1..end].to_owned()) };
                    self.push(token, at, at + end);
                }
                '0'..='9' | '+' | '-' | '.' => self.number(rest)?,
                c if c.is_alphabetic() || c == '_' => {
                    let end = word_end(rest);
                    let word = &rest[..end];
                    let token = match KEYWORDS.iter().find(|keyword| **keyword == word) {
                        Some(keyword) => Token::Keyword(keyword),
                        None if word == "true" => Token::Constant(Value::Bool(true)),
                        None if word == "false" => Token::Constant(Value::Bool(false)),
                        None => Token::Identifier(word.to_owned()),
                    };
                    self.push(token, at, at + end);
                }
                c => {
                    return Err(
                        self.wrong(at, &format!("unexpected {c:?} in command").replace('\'', "\""))
                    );
                }
            }
        }
    }

    fn quoted(&mut self, rest: &str) -> Result<()> {
        let mut escaped = false;
        for (index, c) in rest.char_indices().skip(1) {
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '"' => {
                    let inner = &rest[1..index];
                    let text =
                        unquote(inner).ok_or_else(|| self.wrong(self.at, "invalid syntax"))?;
                    let at = self.at;
                    self.push(Token::Constant(Value::text(text)), at, at + index + 1);
                    return Ok(());
                }
                '\n' => break,
                _ => {}
            }
        }
        Err(self.wrong(self.at, "unterminated quoted string"))
    }

    fn number(&mut self, rest: &str) -> Result<()> {
        let end = rest[1..]
            .find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_')))
            .map_or(rest.len(), |e| e + 1);
        let source = &rest[..end];
        let clean = source.replace('_', "");
        let (sign, digits) = match clean.strip_prefix('-') {
            Some(digits) => (-1, digits),
            None => (1, clean.strip_prefix('+').unwrap_or(&clean)),
        };
        let int = match digits.get(..2) {
            Some("0x" | "0X") => i64::from_str_radix(&digits[2..], 16).ok(),
            Some("0b" | "0B") => i64::from_str_radix(&digits[2..], 2).ok(),
            Some("0o" | "0O") => i64::from_str_radix(&digits[2..], 8).ok(),
            _ => digits.parse::<i64>().ok(),
        };
        let value = match (int, digits.parse::<f64>()) {
            (Some(int), _) => Value::Int(sign * int),
            (None, Ok(float)) => Value::Float(sign as f64 * float),
            (None, Err(_)) => {
                return Err(self.wrong(self.at, &format!("bad number syntax: {source:?}")));
            }
        };
        let at = self.at;
        self.push(Token::Constant(value), at, at + end);
        Ok(())
    }
}

fn word_end(text: &str) -> usize {
    text.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(text.len())
}

/// Go's escapes inside quotes.
fn unquote(text: &str) -> Option<String> {
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        let hex = |chars: &mut std::str::Chars<'_>, count| {
            u32::from_str_radix(&chars.take(count).collect::<String>(), 16)
                .ok()
                .and_then(char::from_u32)
        };
        out.push(match chars.next()? {
            'a' => '\u{7}',
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\u{b}',
            c @ ('\\' | '"' | '\'') => c,
            'x' => hex(&mut chars, 2)?,
            'u' => hex(&mut chars, 4)?,
            'U' => hex(&mut chars, 8)?,
            _ => return None,
        });
    }
    Some(out)
}

/// What ended a list of nodes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Stop {
    OfText,
    Else,
    Branch,
}

struct Parser<'a> {
    name: &'a str,
    text: &'a str,
    functions: &'a dyn Functions,
    tokens: Vec<Spot>,
    next: usize,
    variables: Vec<String>,
    loops: usize,
}

impl Parser<'_> {
    fn wrong(&self, words: &str) -> String {
        let at = self.tokens.get(self.next).or(self.tokens.last()).map_or(0, |spot| spot.at);
        format!("template: {}:{}: {words}", self.name, line(self.text, at))
    }

    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.next).map(|spot| &spot.token)
    }

    fn skip_space(&mut self) {
        while self.peek() == Some(&Token::Space) {
            self.next += 1;
        }
    }

    fn peek_word(&mut self) -> Option<&Token> {
        self.skip_space();
        self.peek()
    }

    fn unexpected(&self, context: &str) -> String {
        match self.tokens.get(self.next) {
            None => self.wrong("unexpected EOF"),
            Some(Spot { token: Token::Close, .. }) => {
                self.wrong(&format!("unexpected \"}}}}\" in {context}"))
            }
            Some(Spot { token: Token::Keyword(word), .. }) => {
                self.wrong(&format!("unexpected <{word}> in {context}"))
            }
            Some(spot) => self.wrong(&format!("unexpected {:?} in {context}", spot.source)),
        }
    }

    /// Nodes up to an `end`, an `else`, or the end of the text.
    fn block(&mut self, context: &str) -> Result<(Vec<Node>, Stop)> {
        let mut nodes = Vec::new();
        loop {
            match self.tokens.get(self.next).map(|spot| spot.token.clone()) {
                None if context.is_empty() => return Ok((nodes, Stop::OfText)),
                None => return Err(self.wrong("unexpected EOF")),
                Some(Token::Text(text)) => {
                    self.next += 1;
                    nodes.push(Node::Text(text));
                }
                Some(_) => {
                    self.next += 1; // the opening braces
                    let keyword = match self.peek_word() {
                        Some(Token::Keyword(word)) => *word,
                        _ => "",
                    };
                    match keyword {
                        "end" => {
                            self.next += 1;
                            self.close("end")?;
                            return Ok((nodes, Stop::Branch));
                        }
                        "else" => {
                            self.next += 1;
                            return Ok((nodes, Stop::Else));
                        }
                        "if" | "with" | "range" => {
                            self.next += 1;
                            nodes.push(self.control(keyword)?);
                        }
                        "break" | "continue" => {
                            if self.loops == 0 {
                                return Err(
                                    self.wrong(&format!("{{{{{keyword}}}}} outside {{{{range}}}}"))
                                );
                            }
                            self.next += 1;
                            self.close(keyword)?;
                            nodes.push(if keyword == "break" {
                                Node::Break
                            } else {
                                Node::Continue
                            });
                        }
                        "" | "nil" => {
                            let pipeline = self.pipeline("command", Token::Close)?;
                            nodes.push(Node::Action(pipeline));
                        }
                        _ => return Err(self.unexpected("command")),
                    }
                }
            }
        }
    }

    fn close(&mut self, context: &str) -> Result<()> {
        match self.peek_word() {
            Some(Token::Close) => {
                self.next += 1;
                Ok(())
            }
            _ => Err(self.unexpected(context)),
        }
    }

    fn control(&mut self, keyword: &'static str) -> Result<Node> {
        let scope = self.variables.len();
        let pipeline = self.pipeline(keyword, Token::Close)?;
        self.loops += usize::from(keyword == "range");
        let (body, end) = self.block(keyword)?;
        self.loops -= usize::from(keyword == "range");
        let otherwise = match end {
            Stop::Else => self.otherwise(keyword)?,
            Stop::Branch | Stop::OfText => Vec::new(),
        };
        self.variables.truncate(scope);
        let branch = Branch { pipeline, body, otherwise };
        Ok(match keyword {
            "if" => Node::If(branch),
            "with" => Node::With(branch),
            _ => Node::Range(branch),
        })
    }

    /// Behind `{{else`: either the rest up to `end`, or `else if` and `else with`, which need no `end` of their own.
    fn otherwise(&mut self, keyword: &'static str) -> Result<Vec<Node>> {
        if let Some(Token::Keyword(word)) = self.peek_word() {
            let word = *word;
            if word == keyword && word != "range" {
                self.next += 1;
                return Ok(vec![self.control(word)?]);
            }
            return Err(self.unexpected("else"));
        }
        self.close("else")?;
        match self.block(keyword)? {
            (nodes, Stop::Branch) => Ok(nodes),
            _ => Err(self.wrong("expected end; found {{else}}")),
        }
    }

    fn pipeline(&mut self, context: &str, end: Token) -> Result<Pipeline> {
        let mut pipeline =
            Pipeline { variables: Vec::new(), declares: false, commands: Vec::new() };
        self.assignment(&mut pipeline, context)?;
        loop {
            match self.peek_word().cloned() {
                Some(token) if token == end => {
                    self.next += 1;
                    if pipeline.commands.is_empty() {
                        return Err(self.wrong(&format!("missing value for {context}")));
                    }
                    return Ok(pipeline);
                }
                Some(
                    Token::Constant(_)
                    | Token::Dot
                    | Token::Field(_)
                    | Token::Identifier(_)
                    | Token::Variable(_)
                    | Token::Left
                    | Token::Keyword("nil"),
                ) => {
                    let command = self.command()?;
                    pipeline.commands.push(command);
                }
                _ => return Err(self.unexpected(context)),
            }
        }
    }

    /// `$x :=`, `$x =`, `$i, $x :=` at the head of a pipeline.
    fn assignment(&mut self, pipeline: &mut Pipeline, context: &str) -> Result<()> {
        let start = self.next;
        let mut names = Vec::new();
        while let Some(Token::Variable(name)) = self.peek_word().cloned() {
            names.push(name);
            self.next += 1;
            match self.peek_word() {
                Some(Token::Comma) if context == "range" && names.len() == 1 => self.next += 1,
                Some(token @ (Token::Declare | Token::Assign)) => {
                    pipeline.declares = *token == Token::Declare;
                    self.next += 1;
                    if pipeline.declares {
                        self.variables.extend(names.iter().cloned());
                    }
                    pipeline.variables = names;
                    return Ok(());
                }
                _ => break,
            }
        }
        self.next = start;
        Ok(())
    }

    fn command(&mut self) -> Result<Vec<Operand>> {
        let mut operands = Vec::new();
        loop {
            self.skip_space();
            if let Some(operand) = self.operand()? {
                operands.push(operand);
            }
            match self.peek() {
                Some(Token::Space) => continue,
                Some(Token::Pipe) => {
                    self.next += 1;
                    match self.peek_word() {
                        Some(Token::Close | Token::Right) | None => {
                            return Err(self.wrong("missing value for command"));
                        }
                        _ => {}
                    }
                }
                Some(Token::Close | Token::Right) => {}
                _ => return Err(self.unexpected("operand")),
            }
            if operands.is_empty() {
                return Err(self.wrong("empty command"));
            }
            return Ok(operands);
        }
    }

    fn operand(&mut self) -> Result<Option<Operand>> {
        let Some(spot) = self.tokens.get(self.next) else { return Ok(None) };
        let (mut at, mut text) = (spot.at, spot.source.clone());
        let mut kind = match spot.token.clone() {
            Token::Dot => OperandKind::Dot,
            Token::Keyword("nil") => OperandKind::Nil,
            Token::Constant(value) => OperandKind::Constant(value),
            Token::Field(name) => OperandKind::Field(vec![name]),
            Token::Variable(name) => {
                if !self.variables.contains(&name) {
                    return Err(self.wrong(&format!("undefined variable {name:?}")));
                }
                OperandKind::Variable(name, Vec::new())
            }
            Token::Identifier(name) => {
                if !functions::exists(&name, self.functions) {
                    return Err(self.wrong(&format!("function {name:?} not defined")));
                }
                OperandKind::Function(name)
            }
            Token::Left => {
                self.next += 1;
                let pipeline = self.pipeline("parenthesized pipeline", Token::Right)?;
                self.next -= 1; // the right paren is taken below
                OperandKind::Nested(Box::new(pipeline), Vec::new())
            }
            _ => return Ok(None),
        };
        self.next += 1;
        if let OperandKind::Nested(..) = kind {
            let end = self.tokens.get(self.next - 1).map_or(self.text.len(), |spot| spot.at + 1);
            text = self.text[at..end].to_owned();
        }
        while let Some(Spot { token: Token::Field(name), at: field, source }) =
            self.tokens.get(self.next)
        {
            match &mut kind {
                OperandKind::Field(path)
                | OperandKind::Variable(_, path)
                | OperandKind::Nested(_, path) => {
                    // Go gives the place of the second field for the whole chain.
                    if path.len() == usize::from(text.starts_with('.')) {
                        at = *field;
                    }
                    path.push(name.clone());
                }
                _ => return Err(self.wrong(&format!("unexpected . after term {text:?}"))),
            }
            text.push_str(source);
            self.next += 1;
        }
        Ok(Some(Operand { at, text, kind }))
    }
}
