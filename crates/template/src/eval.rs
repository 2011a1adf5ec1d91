//! Running a template over a value.

use crate::functions::{self, Functions};
use crate::parse::{Branch, Node, Operand, OperandKind, Pipeline};
use crate::value::Value;
use crate::{Template, print};

/// What a name that is not there means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absent {
    /// `<no value>`, as with any map.
    NoValue,
    /// An error, as `inspect` wants it.
    Error,
    /// The data are a table's headings: Docker's functions pass their argument through.
    Heading,
}

type Result<T> = std::result::Result<T, String>;

enum Flow {
    On,
    Break,
    Continue,
}

struct Evaluator<'a> {
    name: &'static str,
    text: &'a str,
    functions: &'a dyn Functions,
    absent: Absent,
    variables: Vec<(String, Value)>,
    out: String,
}

/// Runs a template over `data`. Errors are Go's: `template: :1:2: executing "" at <.X>: …`.
pub(crate) fn run<F: Functions>(
    template: &Template<F>,
    data: &Value,
    absent: Absent,
) -> Result<String> {
    let mut evaluator = Evaluator {
        name: template.name,
        text: &template.text,
        functions: &template.functions,
        absent,
        variables: vec![("$".to_owned(), data.clone())],
        out: String::new(),
    };
    evaluator.nodes(&template.nodes, data)?;
    Ok(evaluator.out)
}

impl Evaluator<'_> {
    fn wrong(&self, operand: &Operand, words: &str) -> String {
        let before = &self.text[..operand.at.min(self.text.len())];
        let line = 1 + before.matches('\n').count();
        let column = before.rfind('\n').map_or(before.len(), |newline| before.len() - newline - 1);
        let name = self.name;
        format!(
            "template: {name}:{line}:{column}: executing {name:?} at <{}>: {words}",
            operand.text
        )
    }

    fn nodes(&mut self, nodes: &[Node], dot: &Value) -> Result<Flow> {
        for node in nodes {
            match node {
                Node::Text(text) => self.out.push_str(text),
                Node::Action(pipeline) => {
                    let value = self.pipeline(pipeline, dot)?;
                    if pipeline.variables.is_empty() {
                        self.out.push_str(&print::show(&value));
                    }
                }
                Node::Break => return Ok(Flow::Break),
                Node::Continue => return Ok(Flow::Continue),
                Node::If(branch) => match self.branch(branch, dot, Scope::Same)? {
                    Flow::On => {}
                    flow => return Ok(flow),
                },
                Node::With(branch) => match self.branch(branch, dot, Scope::Narrowed)? {
                    Flow::On => {}
                    flow => return Ok(flow),
                },
                Node::Range(branch) => match self.range(branch, dot)? {
                    Flow::On => {}
                    flow => return Ok(flow),
                },
            }
        }
        Ok(Flow::On)
    }

    fn branch(&mut self, branch: &Branch, dot: &Value, scope: Scope) -> Result<Flow> {
        let depth = self.variables.len();
        let value = self.pipeline(&branch.pipeline, dot)?;
        let flow = match (value.is_true(), scope) {
            (true, Scope::Same) => self.nodes(&branch.body, dot),
            (true, Scope::Narrowed) => self.nodes(&branch.body, &value),
            (false, _) => self.nodes(&branch.otherwise, dot),
        };
        self.variables.truncate(depth);
        flow
    }

    fn range(&mut self, branch: &Branch, dot: &Value) -> Result<Flow> {
        let depth = self.variables.len();
        let value = self.values(&branch.pipeline, dot)?;
        let items: Vec<(Value, Value)> = match &value {
            Value::List(items) => items
                .iter()
                .enumerate()
                .map(|(index, item)| (Value::Int(index as i64), item.clone()))
                .collect(),
            Value::Map(entries) => {
                let mut entries: Vec<_> = entries.iter().collect();
                entries.sort_by(|a, b| a.0.cmp(&b.0));
                entries
                    .into_iter()
                    .map(|(key, item)| (Value::Text(key.clone()), item.clone()))
                    .collect()
            }
            Value::Int(count) => {
                (0..*count).map(|index| (Value::Int(index), Value::Int(index))).collect()
            }
            Value::NilList | Value::NilMap | Value::Nil | Value::Missing => Vec::new(),
            other => {
                let operand = branch.pipeline.commands.first().and_then(|command| command.first());
                let words = format!("range can't iterate over {}", print::show(other));
                return Err(operand.map_or(words.clone(), |operand| self.wrong(operand, &words)));
            }
        };
        if items.is_empty() {
            let flow = self.nodes(&branch.otherwise, dot);
            self.variables.truncate(depth);
            return flow;
        }
        for (key, item) in items {
            match branch.pipeline.variables.as_slice() {
                [] => {}
                [one] => self.set(one, item.clone(), branch.pipeline.declares),
                [first, second, ..] => {
                    self.set(first, key, branch.pipeline.declares);
                    self.set(second, item.clone(), branch.pipeline.declares);
                }
            }
            let flow = self.nodes(&branch.body, &item)?;
            self.variables.truncate(depth);
            if matches!(flow, Flow::Break) {
                break;
            }
        }
        Ok(Flow::On)
    }

    fn set(&mut self, name: &str, value: Value, declares: bool) {
        match self.variables.iter_mut().rev().find(|(known, _)| known == name) {
            Some((_, slot)) if !declares => *slot = value,
            _ => self.variables.push((name.to_owned(), value)),
        }
    }

    /// The pipeline's value, after setting its variables.
    fn pipeline(&mut self, pipeline: &Pipeline, dot: &Value) -> Result<Value> {
        let value = self.values(pipeline, dot)?;
        for name in &pipeline.variables {
            self.set(name, value.clone(), pipeline.declares);
        }
        Ok(value)
    }

    fn values(&mut self, pipeline: &Pipeline, dot: &Value) -> Result<Value> {
        let mut value = None;
        for command in &pipeline.commands {
            value = Some(self.command(command, dot, value)?);
        }
        Ok(value.unwrap_or(Value::Missing))
    }

    fn command(&mut self, command: &[Operand], dot: &Value, piped: Option<Value>) -> Result<Value> {
        let (head, args) = command.split_first().expect("the parser makes no empty command");
        match &head.kind {
            OperandKind::Function(name) => self.function(head, name, args, dot, piped),
            OperandKind::Field(path) => self.fields(head, dot, path, args, dot, piped),
            OperandKind::Variable(name, path) if !path.is_empty() => {
                let value = self.variable(name);
                self.fields(head, &value, path, args, dot, piped)
            }
            OperandKind::Nested(pipeline, path) if !path.is_empty() => {
                let value = self.pipeline(pipeline, dot)?;
                self.fields(head, &value, path, args, dot, piped)
            }
            _ if !args.is_empty() || piped.is_some() => {
                Err(self.wrong(head, &format!("can't give argument to non-function {}", head.text)))
            }
            OperandKind::Nil => Err(self.wrong(head, "nil is not a command")),
            _ => self.operand(head, dot),
        }
    }

    fn operand(&mut self, operand: &Operand, dot: &Value) -> Result<Value> {
        match &operand.kind {
            OperandKind::Dot => Ok(dot.clone()),
            OperandKind::Nil => Ok(Value::Nil),
            OperandKind::Constant(value) => Ok(value.clone()),
            OperandKind::Field(path) => self.fields(operand, dot, path, &[], dot, None),
            OperandKind::Variable(name, path) => {
                let value = self.variable(name);
                self.fields(operand, &value, path, &[], dot, None)
            }
            OperandKind::Nested(pipeline, path) => {
                let value = self.pipeline(pipeline, dot)?;
                self.fields(operand, &value, path, &[], dot, None)
            }
            OperandKind::Function(name) => self.function(operand, name, &[], dot, None),
        }
    }

    fn variable(&self, name: &str) -> Value {
        let found = self.variables.iter().rev().find(|(known, _)| known == name);
        found.map_or(Value::Missing, |(_, value)| value.clone())
    }

    fn function(
        &mut self,
        at: &Operand,
        name: &str,
        args: &[Operand],
        dot: &Value,
        piped: Option<Value>,
    ) -> Result<Value> {
        let given = args.len() + usize::from(piped.is_some());
        functions::check_count(name, given, self.functions)
            .map_err(|words| self.wrong(at, &words))?;
        let whole = || {
            let words: Vec<&str> =
                std::iter::once(at).chain(args).map(|operand| operand.text.as_str()).collect();
            Operand { text: words.join(" "), ..at.clone() }
        };
        if name == "and" || name == "or" {
            let mut value = Value::Missing;
            for arg in args {
                value = self.operand(arg, dot)?;
                if value.is_true() == (name == "or") {
                    return Ok(value);
                }
            }
            return Ok(piped.unwrap_or(value));
        }
        let mut values = Vec::with_capacity(given);
        for arg in args {
            values.push(self.operand(arg, dot)?);
        }
        values.extend(piped);
        if self.absent == Absent::Heading && self.functions.takes(name).is_some() {
            return Ok(values.swap_remove(0));
        }
        functions::call(name, &values, self.functions)
            .map_err(|words| self.wrong(&whole(), &format!("error calling {name}: {words}")))
    }

    /// Follows `path` from `value`; only its last part may take arguments.
    fn fields(
        &mut self,
        at: &Operand,
        value: &Value,
        path: &[String],
        args: &[Operand],
        dot: &Value,
        piped: Option<Value>,
    ) -> Result<Value> {
        let mut value = value.clone();
        for (index, name) in path.iter().enumerate() {
            let last = index + 1 == path.len();
            if last && name == "Label" && args.len() + usize::from(piped.is_some()) == 1 {
                let key = match (args.first(), &piped) {
                    (Some(arg), _) => self.operand(arg, dot)?,
                    (None, piped) => piped.clone().unwrap_or(Value::Missing),
                };
                if let Some(label) = key.as_str().and_then(|key| label(&value, key, self.absent)) {
                    return Ok(label);
                }
            }
            if last && (!args.is_empty() || piped.is_some()) {
                return Err(self.wrong(
                    at,
                    &format!("{name} has arguments but cannot be invoked as function"),
                ));
            }
            value = self.field(at, &value, name)?;
        }
        Ok(value)
    }

    fn field(&self, at: &Operand, value: &Value, name: &str) -> Result<Value> {
        if let Some(found) = value.get(name) {
            return Ok(match (value, found) {
                // A nil interface in a map is no value at all.
                (Value::Map(_), Value::Nil) => Value::Missing,
                (_, found) => found.clone(),
            });
        }
        match value {
            Value::Row(_) if name == "Label" => {
                Err(self.wrong(at, "wrong number of args for Label: want 1 got 0"))
            }
            Value::Row(row) => {
                Err(self
                    .wrong(at, &format!("can't evaluate field {name} in type {}", row.type_name)))
            }
            Value::Map(_) | Value::NilMap if self.absent != Absent::Error => Ok(Value::Missing),
            Value::Map(entries)
                if entries.iter().all(|(_, value)| matches!(value, Value::Text(_))) =>
            {
                Ok(Value::Missing)
            }
            Value::Map(_) | Value::Struct("", _) => {
                Err(self.wrong(at, &format!("map has no entry for key {name:?}")))
            }
            Value::Missing | Value::Nil | Value::NilMap => {
                Err(self.wrong(at, &format!("nil pointer evaluating interface {{}}.{name}")))
            }
            other => Err(self
                .wrong(at, &format!("can't evaluate field {name} in type {}", other.type_name()))),
        }
    }
}

#[derive(Clone, Copy)]
enum Scope {
    Same,
    Narrowed,
}

/// `.Label "x"` of a row, or over a heading the label's last word.
fn label(value: &Value, key: &str, absent: Absent) -> Option<Value> {
    match value {
        Value::Row(row) => {
            let found = row.labels.iter().find(|(name, _)| name == key);
            Some(Value::text(found.map_or("", |(_, value)| value)))
        }
        _ if absent == Absent::Heading => {
            Some(Value::text(key.rsplit('.').next().unwrap_or_default().replace(['-', '_'], " ")))
        }
        _ => None,
    }
}
