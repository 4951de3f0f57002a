//! Owns evaluation (SQ-1, SQ-5 to SQ-14): a value for every tree and every event, and the errors on
//! the way.
//!
//! Never panics, never goes on for ever: the tree is bounded, and what functions and `LIKE` do is
//! bounded together ([`super::WORK_BYTES_MAX`]). The surprise: an operator of which an operand came
//! with an error has the zero value of its own type, all the way up. That is what a missing
//! attribute asks for (SQ-6), and what the suite wants of `1 != 1 / 0`. An operand that only cannot
//! be cast counts as the zero value of what it was to be.

use std::borrow::Cow;

use super::error::EvaluationError;
use super::function::Function;
use super::like::Pattern;
use super::tree::{Arithmetic, Call, Literal, Logic, Node, Operator};
use super::value::{self, Attributes, Type, Value};

/// One evaluation.
#[derive(Debug)]
pub(super) struct Run<'v, A> {
    attributes: &'v A,
    /// `None` where the first error ends it (CESQL §4.1, fail fast).
    errors: Option<Vec<EvaluationError>>,
    /// What it may still do.
    work: usize,
}

/// The first error of a run that fails fast.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stopped;

/// What a node evaluates to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Outcome<'v> {
    pub(super) value: Value<'v>,
    /// There was an error in it.
    pub(super) failed: bool,
}

impl<'v> Outcome<'v> {
    fn fine(value: Value<'v>) -> Self {
        Self {
            value,
            failed: false,
        }
    }

    /// With no value of its own to give.
    fn failed(of: Type) -> Self {
        Self {
            value: of.zero(),
            failed: true,
        }
    }
}

type Evaluated<'v> = Result<Outcome<'v>, Stopped>;

impl<'v, A: Attributes> Run<'v, A> {
    /// A run that ends with its first error.
    pub(super) fn fast(attributes: &'v A, work: usize) -> Self {
        Self {
            attributes,
            errors: None,
            work,
        }
    }

    /// A run that collects its errors.
    pub(super) fn complete(attributes: &'v A, work: usize) -> Self {
        Self {
            attributes,
            errors: Some(Vec::new()),
            work,
        }
    }

    /// The errors since they were taken last.
    pub(super) fn take_errors(&mut self) -> Vec<EvaluationError> {
        self.errors.as_mut().map(std::mem::take).unwrap_or_default()
    }

    fn raise(&mut self, error: EvaluationError) -> Result<(), Stopped> {
        match &mut self.errors {
            Some(errors) => {
                errors.push(error);
                Ok(())
            }
            None => Err(Stopped),
        }
    }

    /// The value of `node`.
    pub(super) fn node(&mut self, node: &'v Node) -> Evaluated<'v> {
        match node {
            Node::Literal(literal) => Ok(Outcome::fine(match literal {
                Literal::Boolean(boolean) => Value::Boolean(*boolean),
                Literal::Integer(integer) => Value::Integer(*integer),
                Literal::Text(text, _) => Value::Text(Cow::Borrowed(text)),
            })),
            Node::Attribute(name) => match self.attributes.value(name) {
                Some(value) => Ok(Outcome::fine(value)),
                None => {
                    self.raise(EvaluationError::MissingAttribute(name.as_str().into()))?;
                    Ok(Outcome::failed(Type::Boolean))
                }
            },
            // SQ-12.
            Node::Exists(name) => {
                let exists = self.attributes.value(name).is_some();
                Ok(Outcome::fine(Value::Boolean(exists)))
            }
            Node::Not(operand) => self.not(operand),
            Node::Negate(operand) => self.negate(operand),
            Node::Like {
                operand,
                negated,
                pattern,
                ..
            } => {
                let like = self.like(operand, pattern)?;
                Ok(denied(like, *negated))
            }
            Node::In {
                operand,
                negated,
                set,
            } => {
                let is_in = self.is_in(operand, set)?;
                Ok(denied(is_in, *negated))
            }
            Node::Chain { first, rest } => {
                let mut left = self.node(first)?;
                for (operator, right) in rest {
                    left = self.operator(*operator, left, right)?;
                }
                Ok(left)
            }
            Node::Call(call) => self.call(call),
        }
    }

    /// The suite wants `NOT 10` to be true with a cast error, though integers have a boolean
    /// everywhere else (SQ-9).
    fn not(&mut self, operand: &'v Node) -> Evaluated<'v> {
        let operand = self.node(operand)?;
        if operand.failed {
            return Ok(Outcome::failed(Type::Boolean));
        }
        let (boolean, failed) = if matches!(operand.value, Value::Integer(_)) {
            let integer = value::shown(&operand.value);
            self.raise(EvaluationError::Cast(integer, "a boolean"))?;
            (false, true)
        } else {
            self.boolean(&operand.value)?
        };
        Ok(Outcome {
            value: Value::Boolean(!boolean),
            failed,
        })
    }

    fn negate(&mut self, operand: &'v Node) -> Evaluated<'v> {
        let operand = self.node(operand)?;
        if operand.failed {
            return Ok(Outcome::failed(Type::Integer));
        }
        let (integer, failed) = self.integer(&operand.value)?;
        let (value, outside) = self.fitting(integer.checked_neg(), i32::MAX)?;
        Ok(Outcome {
            value,
            failed: failed || outside,
        })
    }

    /// SQ-11.
    fn like(&mut self, operand: &'v Node, pattern: &Pattern) -> Evaluated<'v> {
        let operand = self.node(operand)?;
        if operand.failed {
            return Ok(Outcome::failed(Type::Boolean));
        }
        let text = value::text(operand.value);
        match pattern.matches(&text, &mut self.work) {
            Some(is_like) => Ok(Outcome::fine(Value::Boolean(is_like))),
            None => self.too_much(Type::Boolean),
        }
    }

    fn too_much(&mut self, of: Type) -> Evaluated<'v> {
        self.work = 0;
        self.raise(EvaluationError::TooMuchWork)?;
        Ok(Outcome::failed(of))
    }

    /// SQ-10: elements are cast to the type of what is looked for. All are evaluated: only `AND`
    /// and `OR` may leave an operand out.
    fn is_in(&mut self, operand: &'v Node, set: &'v [Node]) -> Evaluated<'v> {
        let wanted = self.node(operand)?;
        let (mut found, mut failed, mut cast) = (false, wanted.failed, false);
        for element in set {
            let element = self.node(element)?;
            failed |= element.failed;
            if failed {
                continue;
            }
            let (element, wrong) = self.cast(element.value, wanted.value.of_type())?;
            cast |= wrong;
            found |= !wrong && element == wanted.value;
        }
        if failed {
            return Ok(Outcome::failed(Type::Boolean));
        }
        Ok(Outcome {
            value: Value::Boolean(found),
            failed: cast,
        })
    }

    /// What `operator` makes of the value before it and the node behind it.
    pub(super) fn operator(
        &mut self,
        operator: Operator,
        left: Outcome<'v>,
        right: &'v Node,
    ) -> Evaluated<'v> {
        match operator {
            Operator::Logic(logic) => self.logic(logic, &left, right),
            Operator::Equal => self.equal(left, right),
            Operator::NotEqual => Ok(denied(self.equal(left, right)?, true)),
            Operator::Order(order) => {
                let (integers, failed) = self.integers(&left, right)?;
                let Some((left, right)) = integers else {
                    return Ok(Outcome::failed(Type::Boolean));
                };
                Ok(Outcome {
                    value: Value::Boolean(order.holds(left, right)),
                    failed,
                })
            }
            Operator::Arithmetic(operator) => {
                let (integers, failed) = self.integers(&left, right)?;
                let Some(operands) = integers else {
                    return Ok(Outcome::failed(Type::Integer));
                };
                let (value, outside) = self.arithmetic(operator, operands)?;
                Ok(Outcome {
                    value,
                    failed: failed || outside,
                })
            }
        }
    }

    /// SQ-5.
    fn logic(&mut self, logic: Logic, left: &Outcome<'v>, right: &'v Node) -> Evaluated<'v> {
        // A zero value that stands for an error is not cast: that would be another error.
        let (is_left, uncast) = if left.failed {
            (left.value.is_true(), false)
        } else {
            self.boolean(&left.value)?
        };
        let is_decided = match logic {
            Logic::And => !is_left,
            Logic::Or => is_left,
            Logic::Xor => false,
        };
        if is_decided {
            return Ok(Outcome {
                value: Value::Boolean(is_left && !left.failed),
                failed: left.failed || uncast,
            });
        }
        let right = self.node(right)?;
        if left.failed || right.failed {
            return Ok(Outcome::failed(Type::Boolean));
        }
        let (is_right, also_uncast) = self.boolean(&right.value)?;
        let holds = match logic {
            Logic::And => is_left && is_right,
            Logic::Or => is_left || is_right,
            Logic::Xor => is_left != is_right,
        };
        Ok(Outcome {
            value: Value::Boolean(holds),
            failed: uncast || also_uncast,
        })
    }

    /// SQ-10: the left operand is cast to the type of the right one.
    fn equal(&mut self, left: Outcome<'v>, right: &'v Node) -> Evaluated<'v> {
        let right = self.node(right)?;
        if left.failed || right.failed {
            return Ok(Outcome::failed(Type::Boolean));
        }
        let (left, failed) = self.cast(left.value, right.value.of_type())?;
        Ok(Outcome {
            value: Value::Boolean(left == right.value),
            failed,
        })
    }

    /// Both operands as integers, where none has failed; and whether one could not be cast.
    fn integers(
        &mut self,
        left: &Outcome<'v>,
        right: &'v Node,
    ) -> Result<(Option<(i32, i32)>, bool), Stopped> {
        let right = self.node(right)?;
        if left.failed || right.failed {
            return Ok((None, true));
        }
        let (left, uncast) = self.integer(&left.value)?;
        let (right, also_uncast) = self.integer(&right.value)?;
        Ok((Some((left, right)), uncast || also_uncast))
    }

    /// SQ-7. What does not fit is an error, and the nearest value that does, as `ABS` has it.
    fn arithmetic(
        &mut self,
        operator: Arithmetic,
        (left, right): (i32, i32),
    ) -> Result<(Value<'v>, bool), Stopped> {
        let divides = matches!(operator, Arithmetic::Divide | Arithmetic::Modulo);
        if divides && right == 0 {
            self.raise(EvaluationError::Math("division by zero"))?;
            return Ok((Value::Integer(0), true));
        }
        let (exact, nearest) = match operator {
            Arithmetic::Plus => (left.checked_add(right), left.saturating_add(right)),
            Arithmetic::Minus => (left.checked_sub(right), left.saturating_sub(right)),
            Arithmetic::Times => (left.checked_mul(right), left.saturating_mul(right)),
            Arithmetic::Divide => (left.checked_div(right), i32::MAX),
            // -2147483648 % -1 is 0, whatever the processor says.
            Arithmetic::Modulo => (Some(left.wrapping_rem(right)), 0),
        };
        self.fitting(exact, nearest)
    }

    fn fitting(&mut self, exact: Option<i32>, nearest: i32) -> Result<(Value<'v>, bool), Stopped> {
        if exact.is_none() {
            self.raise(EvaluationError::Math("the result does not fit 32 bits"))?;
        }
        let value = Value::Integer(exact.unwrap_or(nearest));
        Ok((value, exact.is_none()))
    }

    /// SQ-13, SQ-14.
    fn call(&mut self, call: &'v Call) -> Evaluated<'v> {
        let Some(function) = call.function else {
            let arguments = call.arguments.len();
            let error = EvaluationError::MissingFunction(call.name.clone(), arguments);
            self.raise(error)?;
            return Ok(Outcome::failed(Type::Boolean));
        };
        let (mut values, mut failed, mut uncast, mut bytes) = (Vec::new(), false, false, 1);
        for (index, argument) in call.arguments.iter().enumerate() {
            let argument = self.node(argument)?;
            failed |= argument.failed;
            if failed {
                continue;
            }
            let (value, wrong) = self.cast(argument.value, function.takes(index))?;
            uncast |= wrong;
            bytes += match &value {
                Value::Text(text) => text.len(),
                Value::Boolean(_) | Value::Integer(_) => 1,
            };
            // A delimiter may be written before every part.
            if index == 0 && function == Function::ConcatWs {
                bytes = bytes.saturating_mul(call.arguments.len());
            }
            values.push(value);
        }
        if failed {
            return Ok(Outcome::failed(function.returns()));
        }
        match self.work.checked_sub(bytes) {
            Some(left) => self.work = left,
            None => return self.too_much(function.returns()),
        }
        let (value, error) = function.call(values);
        let failed = uncast || error.is_some();
        error.map_or(Ok(()), |error| self.raise(error))?;
        Ok(Outcome { value, failed })
    }

    /// The boolean of `value`, false where it has none, and whether that is an error.
    fn boolean(&mut self, value: &Value<'v>) -> Result<(bool, bool), Stopped> {
        match value::boolean(value) {
            Ok(boolean) => Ok((boolean, false)),
            Err(error) => self.raise(error).map(|()| (false, true)),
        }
    }

    /// The integer of `value`, 0 where it has none, and whether that is an error.
    fn integer(&mut self, value: &Value<'v>) -> Result<(i32, bool), Stopped> {
        match value::integer(value) {
            Ok(integer) => Ok((integer, false)),
            Err(error) => self.raise(error).map(|()| (0, true)),
        }
    }

    fn cast(&mut self, value: Value<'v>, to: Type) -> Result<(Value<'v>, bool), Stopped> {
        Ok(match to {
            Type::Boolean => {
                let (boolean, failed) = self.boolean(&value)?;
                (Value::Boolean(boolean), failed)
            }
            Type::Integer => {
                let (integer, failed) = self.integer(&value)?;
                (Value::Integer(integer), failed)
            }
            Type::Text => (Value::Text(value::text(value)), false),
        })
    }
}

/// `NOT` before an operator of its own, where that is written; an error stays false (SQ-6).
fn denied(outcome: Outcome<'_>, negated: bool) -> Outcome<'_> {
    if !negated {
        return outcome;
    }
    if outcome.failed {
        return Outcome::failed(Type::Boolean);
    }
    Outcome::fine(Value::Boolean(!outcome.value.is_true()))
}
