"""Beginnings that ask for nothing in particular."""

NEUTRAL = (
    "I went to the shop and",
    "The meeting started at",
    "My friend told me that",
    "When we arrived, the",
    "It was a quiet morning and",
    "The report says that",
    "In the end, I think",
    "She opened the letter and",
    "There are many ways to",
    "Yesterday the weather was",
    "The first thing to know is",
    "He looked at the table and",
    "People often say that",
    "On the way home, they",
    "The answer to that question is",
    "After a long day,",
    "We decided to",
    "The room was",
    "Most of the time,",
    "Once the work was done,",
)
