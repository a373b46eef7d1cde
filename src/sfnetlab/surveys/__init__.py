"""Surveys: their kinds, catalogues, cutouts, downloads, the mock population and its pictures.

Whoever adds a kind of survey writes its file, `surveys/<kind>.py`, and adds its settings to `Survey`.
"""

from sfnetlab.surveys.embeddings import EmbeddingsSurvey
from sfnetlab.surveys.folder import FolderSurvey
from sfnetlab.surveys.galaxy10 import Galaxy10Survey
from sfnetlab.surveys.hub import HubSurvey
from sfnetlab.surveys.mock import MockSurvey
from sfnetlab.surveys.sdss import SDSSSurvey

Survey = MockSurvey | FolderSurvey | SDSSSurvey | HubSurvey | Galaxy10Survey | EmbeddingsSurvey
"""Every kind of survey, told apart by `kind`."""
